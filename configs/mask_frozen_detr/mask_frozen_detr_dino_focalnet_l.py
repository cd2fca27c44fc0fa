"""Mask Frozen-DETR on DINO with FocalNet-L and five scales: 54.9 mask AP on COCO val (Table 6).

The encoder works at a quarter of the image's side, so no backbone map is added to its features.
"""

from ..detectors.dino_focalnet_l_5scale import model as _detector
from .mask_frozen_detr_hdetr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.detector = _detector
model.detector.num_classes = "${..num_classes}"
model.mask_network.stage1_channels = 192
model.mask_network.neck = "none"
model.num_boxes = 300
train.init_checkpoint = "zoo://dino_focalnet_l"
