"""Mask Transfiner on ResNet-101-FPN with deformable convolutions, 3x: 42.2 AP on COCO test-dev."""

from .mask_transfiner_r50_dcn_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
