"""FastInst-D3 on ResNet-101: 39.9 AP on COCO test-dev (Table 1).

The release starts from a Caffe model whose input statistics and strides do not fit its own config;
torchvision's weights do.
"""

from .fastinst_r50_d3 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.stages.depth = 101
train.init_checkpoint = "zoo://resnet101-torchvision"
