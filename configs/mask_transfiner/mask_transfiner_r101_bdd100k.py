"""Mask Transfiner on BDD100K with ResNet-101-FPN: 23.6 mask AP on val (Table 11)."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .mask_transfiner_r101_3x import dataloader, lr_multiplier, model, optimizer, train

model.num_classes = 8

dataloader.train.dataset.names = "bdd100k_ins_seg_train"
dataloader.test.dataset.names = "bdd100k_ins_seg_val"
dataloader.train.mapper.augmentations[0] = L(T.ResizeShortestEdge)(
    short_edge_length=list(range(600, 721, 24)), sample_style="choice", max_size=1333
)
dataloader.test.mapper.augmentations[0] = L(T.ResizeShortestEdge)(
    short_edge_length=720, max_size=1333
)

train.max_iter = 30_000
lr_multiplier.scheduler.milestones = [22_000, 26_000]
lr_multiplier.scheduler.num_updates = train.max_iter
lr_multiplier.warmup_length = 1000 / train.max_iter
