"""Mask Frozen-DETR on H-Deformable-DETR with large-scale jittering (Table 13: +0.3 mask AP).

The paper does not say which; these are the usual factors of 0.1 to 2 on a square of 1024 pixels.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from queryseg.data.augmentations import large_scale_jitter

from .mask_frozen_detr_hdetr_r50 import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(prob=0.5),
    L(large_scale_jitter)(image_size=1024, min_scale=0.1, max_scale=2.0, pad=False),
]
