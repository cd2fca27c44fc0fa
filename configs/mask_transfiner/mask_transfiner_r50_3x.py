"""Mask Transfiner on ResNet-50-FPN, 3x schedule: 39.4 AP on COCO test-dev (Table 9)."""

from .mask_transfiner_r50_1x import dataloader, lr_multiplier, model, optimizer, train

train.max_iter = 270_000
lr_multiplier.scheduler.milestones = [210_000, 250_000]
lr_multiplier.scheduler.num_updates = train.max_iter
lr_multiplier.warmup_length = 1000 / train.max_iter
