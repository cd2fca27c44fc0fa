"""QueryInst with 100 queries on ResNet-50, 36 epochs: 40.1 mask AP on COCO test-dev (Table 1).

The family file: every other QueryInst config imports it and changes a few lines. The rows of the
paper's ablation tables are overrides, listed in the method's README.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BasicStem, ResNet

from queryseg.backbones import FixedBatchNorm
from queryseg.data.augmentations import multi_scale
from queryseg.projects.queryinst.criterion import QueryInstCriterion
from queryseg.projects.queryinst.decoder import QueryInstDecoder
from queryseg.projects.queryinst.mask_branch import MaskBranch
from queryseg.projects.queryinst.matcher import StageMatcher
from queryseg.projects.queryinst.model import QueryInst
from queryseg.projects.queryinst.pyramid import XavierFPN
from queryseg.projects.queryinst.roi_features import BoxFeatures

from ..common.data import dataloader
from ..common.optim import adamw as optimizer
from ..common.schedule import multi_step
from ..common.train import train

model = L(QueryInst)(
    num_classes=80,
    backbone=L(XavierFPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm=FixedBatchNorm),
            stages=L(ResNet.make_default_stages)(
                depth=50, stride_in_1x1=False, norm=FixedBatchNorm
            ),
            out_features="${..in_features}",
            freeze_at=2,
        ),
        in_features=["res2", "res3", "res4", "res5"],
        out_channels="${..decoder.embed_dim}",
    ),
    decoder=L(QueryInstDecoder)(
        embed_dim=256,
        num_classes="${..num_classes}",
        num_queries=100,
        num_stages=6,
        box_features=L(BoxFeatures)(resolution=7, strides=[4, 8, 16, 32], finest_side=56),
        num_heads=8,
        dynamic_dim=64,
        ffn_dim=2048,
        num_class_layers=1,
        num_box_layers=3,
        share_query=True,
        share_msa=True,
        box_init="image",
    ),
    mask_branch=L(MaskBranch)(
        embed_dim="${..decoder.embed_dim}",
        num_classes="${..num_classes}",
        num_stages="${..decoder.num_stages}",
        box_features=L(BoxFeatures)(
            resolution=14,
            strides="${...decoder.box_features.strides}",
            finest_side="${...decoder.box_features.finest_side}",
        ),
        dynamic_dim="${..decoder.dynamic_dim}",
        num_convs=4,
        dynamic=True,
        parallel=True,
        flow="none",
        init="as_run",
    ),
    criterion=L(QueryInstCriterion)(
        weights={"cls": 2.0, "bbox": 5.0, "iou": 2.0, "mask": 8.0},
        matcher=L(StageMatcher)(
            weight_class="${..weights.cls}",
            weight_box="${..weights.bbox}",
            weight_giou="${..weights.iou}",
        ),
    ),
    pixel_mean=[123.675, 116.280, 103.530],
    pixel_std=[58.395, 57.120, 57.375],
    max_detections="${.decoder.num_queries}",
    clip_boxes=False,
)

dataloader.train.mapper.augmentations = [
    L(multi_scale)(
        short_edge_length=[480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
        max_size=1333,
        sample_style="choice",
        crop=False,
    )
]
dataloader.train.mapper.recompute_boxes = False

optimizer.lr = 2.5e-5
optimizer.weight_decay = 1e-4
optimizer.params.lr_multipliers = {}
optimizer.params.weight_decay_norm = None
optimizer.params.weight_decay_embed = None

train.max_iter = 263_880
train.total_batch_size = 16
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.clip_grad.enabled = True
train.clip_grad.max_norm = 1.0
train.checkpointer.period = 7330
train.eval_period = 7330

lr_multiplier = multi_step(train.max_iter, (197_910, 241_890), warmup_iters=1000)
