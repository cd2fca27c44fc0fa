"""Mask Transfiner on ResNet-101-FPN, 3x schedule: 40.7 AP on COCO test-dev (Table 9)."""

from .mask_transfiner_r50_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
