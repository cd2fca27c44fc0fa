"""QueryInst with 100 queries on ResNet-50, 12 epochs at one scale.

42.0 box AP and 37.5 mask AP on COCO val with mmdetection's re-tuned optimizer.
"""

from ..common.schedule import multi_step
from .queryinst_r50_100q_3x import dataloader, model, optimizer, train

dataloader.train.mapper.augmentations[0].short_edge_length = [800]

train.max_iter = 87_960
lr_multiplier = multi_step(train.max_iter, (58_640, 80_630), warmup_iters=1000)
