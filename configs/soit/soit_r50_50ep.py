"""SOIT on ResNet-50 with the release's recipe of 50 epochs: 42.2 AP on COCO val (Table 5).

The family file: every other SOIT config imports it and changes a few lines. The rows of the paper's
ablation tables are overrides, listed in the method's README.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BasicStem, ResNet

from queryseg.data.augmentations import RandomChoice
from queryseg.deformable_detr import (
    DeformableDecoder,
    DeformableEncoder,
    PyramidProjection,
    PyramidTokens,
)
from queryseg.matching import BoxMatcher
from queryseg.projects.soit.criterion import SOITCriterion
from queryseg.projects.soit.instance_transformer import InstanceTransformer
from queryseg.projects.soit.mask_branch import build_mask_branch
from queryseg.projects.soit.mask_encoder import MaskEncoder
from queryseg.projects.soit.mask_loss import MaskLoss
from queryseg.projects.soit.model import SOIT
from queryseg.projects.soit.queries import build_queries

from ..common.data import dataloader
from ..common.optim import adamw as optimizer
from ..common.schedule import multi_step
from ..common.train import train

model = L(SOIT)(
    num_classes=80,
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res3", "res4", "res5"],
        freeze_at=2,
    ),
    projection=L(PyramidProjection)(
        in_channels={"res3": 512, "res4": 1024, "res5": 2048},
        embed_dim="${..decoder.embed_dim}",
        num_levels="${..decoder.num_levels}",
        bias=False,
    ),
    tokens=L(PyramidTokens)(
        embed_dim="${..decoder.embed_dim}", num_levels="${..decoder.num_levels}"
    ),
    encoder=L(DeformableEncoder)(
        num_layers=6,
        embed_dim="${..decoder.embed_dim}",
        num_levels="${..decoder.num_levels}",
        num_heads="${..decoder.num_heads}",
        num_points="${..decoder.num_points}",
        ffn_dim="${..decoder.ffn_dim}",
        dropout="${..decoder.dropout}",
    ),
    queries=L(build_queries)(
        kind="proposals",
        num_queries=300,
        embed_dim="${..decoder.embed_dim}",
        num_classes="${..num_classes}",
    ),
    decoder=L(DeformableDecoder)(
        num_layers=6,
        embed_dim=256,
        num_heads=8,
        num_levels=4,
        num_points=4,
        ffn_dim=1024,
        dropout=0.1,
        refine=True,
        size_bias=0.0,
    ),
    mask_branch=L(build_mask_branch)(
        embed_dim="${..decoder.embed_dim}",
        num_layers=6,
        share_head=True,
        encoder=L(MaskEncoder)(
            mask_channels=8,
            embed_dim="${...decoder.embed_dim}",
            num_layers=1,
            num_heads=1,
            ffn_dim="${...decoder.ffn_dim}",
            dropout="${...decoder.dropout}",
        ),
        transformer=L(InstanceTransformer)(
            mask_channels="${..encoder.mask_channels}",
            num_heads=4,
            num_points=4,
            position="relative",
            relu=True,
        ),
    ),
    criterion=L(SOITCriterion)(
        weights={"class": 2.0, "box": 5.0, "giou": 2.0, "dice": 8.0, "bce": 2.0},
        matcher=L(BoxMatcher)(
            weight_class="${..weights.class}",
            weight_box="${..weights.box}",
            weight_giou="${..weights.giou}",
        ),
        mask_loss=L(MaskLoss)(),
    ),
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
    resize_twice=False,
)

_resize = L(T.ResizeShortestEdge)(
    short_edge_length=[480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
    max_size=1333,
    sample_style="choice",
)
_crop = [
    L(T.ResizeShortestEdge)(
        short_edge_length=[400, 500, 600], max_size=4200, sample_style="choice"
    ),
    L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
]
dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(prob=0.5),
    L(RandomChoice)(first=[_resize], second=[*_crop, _resize]),
]
dataloader.train.mapper.recompute_boxes = False
dataloader.train.dataset.filter_empty = False

optimizer.lr = 2e-4
optimizer.weight_decay = 1e-4
optimizer.params.lr_multipliers = {"backbone": 0.1, "sampling_offsets": 0.1}
optimizer.params.weight_decay_norm = None
optimizer.params.weight_decay_embed = None

train.max_iter = 184_825
train.total_batch_size = 32
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.clip_grad.enabled = True
train.clip_grad.max_norm = 0.1

lr_multiplier = multi_step(train.max_iter, (147_860,))
