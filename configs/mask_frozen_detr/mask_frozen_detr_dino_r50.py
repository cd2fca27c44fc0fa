"""Mask Frozen-DETR on DINO with ResNet-50 and four scales.

`train.init_checkpoint` has to name a file of the detector: the official ones lie where no program
can fetch them.
"""

from ..detectors.dino_r50_4scale import model as _detector
from .mask_frozen_detr_hdetr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.detector = _detector
model.detector.num_classes = "${..num_classes}"
model.num_boxes = 300
train.init_checkpoint = ""
