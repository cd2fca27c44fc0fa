"""FastInst-D3 on ResNet-50 with the release's recipe: 37.9 AP on COCO val (Table 6a).

The family file: every other FastInst config imports it and changes a few lines. The rows of the
paper's ablation tables are overrides, listed in the method's README.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BasicStem, ResNet

from queryseg.data.augmentations import RandomChoice
from queryseg.losses import PointSampler
from queryseg.projects.fastinst.activation_loss import InstanceActivationLoss, PixelMatcher
from queryseg.projects.fastinst.build import build_pixel_decoder, build_positions, build_queries
from queryseg.projects.fastinst.criterion import FastInstCriterion
from queryseg.projects.fastinst.decoder import FastInstDecoder
from queryseg.projects.fastinst.matcher import QueryMatcher
from queryseg.projects.fastinst.model import FastInst

from ..common.data import dataloader
from ..common.optim import adamw as optimizer
from ..common.schedule import multi_step
from ..common.train import train

model = L(FastInst)(
    num_classes=80,
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res3", "res4", "res5"],
    ),
    pixel_decoder=L(build_pixel_decoder)(
        kind="ppm_fpn",
        in_channels={"res3": 512, "res4": 1024, "res5": 2048},
        embed_dim="${..decoder.embed_dim}",
    ),
    decoder=L(FastInstDecoder)(
        embed_dim=256,
        num_classes="${..num_classes}",
        queries=L(build_queries)(
            kind="activation",
            num_queries=100,
            embed_dim="${..embed_dim}",
            num_classes="${..num_classes}",
        ),
        positions=L(build_positions)(
            kind="learned", num_queries="${..queries.num_queries}", embed_dim="${..embed_dim}"
        ),
        num_layers=3,
        num_aux_queries=8,
        num_heads=8,
        ffn_dim=1024,
        update="pixel_then_query",
    ),
    criterion=L(FastInstCriterion)(
        weights={"ce": 2.0, "mask": 5.0, "dice": 5.0, "proposal": 20.0},
        no_object_weight=0.1,
        point_sampler=L(PointSampler)(
            num_points=12544, oversample_ratio=3.0, importance_sample_ratio=0.75
        ),
        matcher=L(QueryMatcher)(
            weight_class="${..weights.ce}",
            weight_mask="${..weights.mask}",
            weight_dice="${..weights.dice}",
            weight_location=1000.0,
            point_sampler="${..point_sampler}",
        ),
        activation_loss=L(InstanceActivationLoss)(
            matcher=L(PixelMatcher)(weight_class="${...weights.ce}", weight_location=1000.0),
            target="matched",
        ),
    ),
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
    gt_guidance=True,
)

resize_and_flip = [
    L(T.ResizeShortestEdge)(
        short_edge_length=[416, 448, 480, 512, 544, 576, 608, 640],
        max_size=853,
        sample_style="choice",
    ),
    L(T.RandomFlip)(prob=0.5),
]
crop = [
    L(T.ResizeShortestEdge)(short_edge_length=[400, 500, 600], sample_style="choice"),
    L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
]
dataloader.train.mapper.augmentations = [
    L(RandomChoice)(first=resize_and_flip, second=[*crop, *resize_and_flip])
]
dataloader.train.mapper.filter_empty = False
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=640, max_size=853)
]

train.max_iter = 368_750
train.total_batch_size = 16
train.seed = 42
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.amp.enabled = True
train.amp.dtype = "float16"

lr_multiplier = multi_step(train.max_iter, (327_778, 355_092))
