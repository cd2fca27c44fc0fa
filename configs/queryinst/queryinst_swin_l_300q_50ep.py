"""QueryInst with 300 queries on Swin-L, 50 epochs on crops at 400 to 1200 pixels: 48.9 mask AP on
COCO val (Table 1)."""

from ..common.schedule import multi_step
from ..common.swin import swin_large as _swin
from .queryinst_swin_t_300q_3x import dataloader, model, optimizer, train

model.backbone.bottom_up = _swin
dataloader.train.mapper.augmentations[0].short_edge_length = [400, 1200]
dataloader.train.mapper.augmentations[0].sample_style = "range"

train.max_iter = 366_500
train.init_checkpoint = "zoo://swin_large-22k"
lr_multiplier = multi_step(train.max_iter, (293_200,), warmup_iters=1000)
