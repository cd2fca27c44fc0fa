"""H-Deformable-DETR on Swin-L with 900 queries: 57.8 box AP on COCO val (release)."""

from ..common.swin import swin_large as _swin
from .hdetr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone = _swin
model.backbone.norm_features = ["res3", "res4", "res5"]
model.backbone.drop_path_rate = 0.5
model.in_channels = {"res3": 384, "res4": 768, "res5": 1536}
model.num_queries = 900
optimizer.weight_decay = 0.05
train.init_checkpoint = "zoo://swin_large-22k"
