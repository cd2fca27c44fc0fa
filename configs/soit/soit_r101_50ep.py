"""SOIT on ResNet-101: 42.9 AP on COCO val, 43.4 on test-dev (Table 1)."""

from .soit_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages.depth = 101
train.init_checkpoint = "zoo://resnet101-torchvision"
