"""FastInst-D1 on ResNet-50-d with deformable convolutions, tested at 576 pixels: 38.0 AP on COCO
test-dev (Table 1)."""

from .fastinst_r50d_dcn_d3 import dataloader, lr_multiplier, model, optimizer, train

model.decoder.num_layers = 1
dataloader.test.mapper.augmentations[0].short_edge_length = 576
dataloader.test.mapper.augmentations[0].max_size = 777
