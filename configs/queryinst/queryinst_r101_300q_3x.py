"""QueryInst with 300 queries on ResNet-101, trained on crops: 42.8 mask AP on COCO test-dev
(Table 1)."""

from .queryinst_r50_300q_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages.depth = 101
train.init_checkpoint = "zoo://resnet101-torchvision"
