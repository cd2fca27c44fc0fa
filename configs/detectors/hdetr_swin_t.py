"""H-Deformable-DETR on Swin-T: 53.2 box AP on COCO val after 36 epochs (release)."""

from ..common.swin import swin_tiny as _swin
from .hdetr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone = _swin
model.backbone.norm_features = ["res3", "res4", "res5"]
model.in_channels = {"res3": 192, "res4": 384, "res5": 768}
train.init_checkpoint = "zoo://swin_tiny"
