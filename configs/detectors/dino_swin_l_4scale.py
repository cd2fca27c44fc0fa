"""DINO on Swin-L (window 12), four scales: 56.8 box AP on COCO val after 12 epochs (release)."""

from ..common.swin import swin_large as _swin
from .dino_r50_4scale import dataloader, lr_multiplier, model, optimizer, train

model.backbone = _swin
model.backbone.window_size = 12
model.backbone.drop_path_rate = 0.2
model.backbone.norm_features = ["res3", "res4", "res5"]
model.in_channels = {"res3": 384, "res4": 768, "res5": 1536}
train.init_checkpoint = "zoo://swin_large-384-22k"
