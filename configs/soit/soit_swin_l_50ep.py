"""SOIT on Swin-L: 49.2 AP on COCO test-dev (Table 1).

The release has no such model. The paper names the backbone only; the weights of 22,000 classes at
224 pixels, with windows of 7, are what SOLQ and QueryInst compare with.
"""

from ..common.swin import swin_large as _swin_large
from .soit_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone = _swin_large
model.backbone.out_features = ["res3", "res4", "res5"]
model.projection.in_channels = {"res3": 384, "res4": 768, "res5": 1536}
train.init_checkpoint = "zoo://swin_large-22k"
