"""H-Deformable-DETR on Swin-T: 53.2 box AP on COCO val after 36 epochs (release)."""

from ..common.swin import swin_tiny
from .hdetr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone = swin_tiny
model.backbone.norm_features = ["res3", "res4", "res5"]
model.in_channels = {"res3": 192, "res4": 384, "res5": 768}
train.init_checkpoint = (
    "https://github.com/SwinTransformer/storage/releases/download/v1.0.0/"
    "swin_tiny_patch4_window7_224.pth"
)
