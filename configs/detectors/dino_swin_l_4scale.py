"""DINO on Swin-L (window 12), four scales: 56.8 box AP on COCO val after 12 epochs (release)."""

from ..common.swin import swin_large
from .dino_r50_4scale import dataloader, lr_multiplier, model, optimizer, train

model.backbone = swin_large
model.backbone.window_size = 12
model.backbone.norm_features = ["res3", "res4", "res5"]
model.in_channels = {"res3": 384, "res4": 768, "res5": 1536}
train.init_checkpoint = (
    "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
    "swin_large_patch4_window12_384_22k.pth"
)
