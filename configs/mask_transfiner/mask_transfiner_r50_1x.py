"""Mask Transfiner on Mask R-CNN with ResNet-50-FPN, as released: 37.0 AP on COCO test-dev.

The family file: every other config of the method imports it and changes a few lines. It computes
what the release computes, limits included. For new training `mask_transfiner_r50_all.py` is the
better start; the rows of the paper's ablation tables are overrides, listed in the method's README.
"""

from detectron2.config import LazyCall as L

from queryseg.projects.mask_transfiner.model import MaskTransfiner

from ..common.data import dataloader
from ..common.faster_rcnn_fpn import parts as _parts
from ..common.optim import sgd as optimizer
from ..common.quadtree_mask_head import mask_head as _mask_head
from ..common.schedule import multi_step
from ..common.train import train

model = L(MaskTransfiner)(**_parts)
model.roi_heads.mask_head = _mask_head
model.roi_heads.mask_head.coarse_head.num_classes = "${....num_classes}"

dataloader.train.mapper.image_format = "BGR"
dataloader.train.mapper.keep_polygons = True
dataloader.train.mapper.recompute_boxes = False
dataloader.test.mapper.image_format = "BGR"
dataloader.evaluator.tasks = ["bbox", "segm", "boundary"]

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.max_iter = 90_000
train.total_batch_size = 16

lr_multiplier = multi_step(train.max_iter, (60_000, 80_000), warmup_iters=1000)
