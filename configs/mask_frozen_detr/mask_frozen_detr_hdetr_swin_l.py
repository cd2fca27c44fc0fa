"""Mask Frozen-DETR on H-Deformable-DETR with Swin-L: 51.9 mask AP on COCO val (Table 6)."""

from ..detectors.hdetr_swin_l_n900 import model as _detector
from .mask_frozen_detr_hdetr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.detector = _detector
model.detector.num_classes = "${..num_classes}"
model.mask_network.stage1_channels = 192
train.init_checkpoint = "zoo://hdetr_swin_l_n900"
