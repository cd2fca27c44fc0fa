"""Mask R-CNN on ResNet-101-FPN with Detectron2's recipe: 42.9 box AP and 38.6 mask AP on COCO val.

The baseline that QueryInst compares schedules and crops with (its Table 8); longer schedules and
crops are overrides, listed in QueryInst's README.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)

from queryseg.data.augmentations import multi_scale
from queryseg.mask_rcnn import MaskRCNN

from ..common.data import dataloader
from ..common.optim import sgd as optimizer
from ..common.schedule import multi_step
from ..common.train import train

_pooled = {
    "scales": [1 / 4, 1 / 8, 1 / 16, 1 / 32],
    "sampling_ratio": 0,
    "pooler_type": "ROIAlignV2",
}

model = L(MaskRCNN)(
    num_classes=80,
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=101, stride_in_1x1=True, norm="FrozenBN"),
            out_features="${..in_features}",
            freeze_at=2,
        ),
        in_features=["res2", "res3", "res4", "res5"],
        out_channels=256,
        top_block=L(LastLevelMaxPool)(),
    ),
    proposal_generator=L(RPN)(
        in_features=["p2", "p3", "p4", "p5", "p6"],
        head=L(StandardRPNHead)(in_channels="${...backbone.out_channels}", num_anchors=3),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[32], [64], [128], [256], [512]],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64],
            offset=0.0,
        ),
        anchor_matcher=L(Matcher)(
            thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=[2000, 1000],
        post_nms_topk=[1000, 1000],
        nms_thresh=0.7,
    ),
    roi_heads=L(StandardROIHeads)(
        num_classes="${..num_classes}",
        batch_size_per_image=512,
        positive_fraction=0.25,
        proposal_matcher=L(Matcher)(
            thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False
        ),
        box_in_features=["p2", "p3", "p4", "p5"],
        box_pooler=L(ROIPooler)(output_size=7, **_pooled),
        box_head=L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels="${....backbone.out_channels}", height=7, width=7),
            conv_dims=[],
            fc_dims=[1024, 1024],
        ),
        box_predictor=L(FastRCNNOutputLayers)(
            input_shape=L(ShapeSpec)(channels=1024),
            test_score_thresh=0.05,
            test_topk_per_image=100,
            box2box_transform=L(Box2BoxTransform)(weights=[10, 10, 5, 5]),
            num_classes="${..num_classes}",
        ),
        mask_in_features="${.box_in_features}",
        mask_pooler=L(ROIPooler)(output_size=14, **_pooled),
        mask_head=L(MaskRCNNConvUpsampleHead)(
            input_shape=L(ShapeSpec)(channels="${....backbone.out_channels}", height=14, width=14),
            num_classes="${..num_classes}",
            conv_dims=[256, 256, 256, 256, 256],
        ),
    ),
    pixel_mean=[103.53, 116.28, 123.675],
    pixel_std=[1.0, 1.0, 1.0],
    input_format="BGR",
)

dataloader.train.mapper.image_format = "BGR"
dataloader.train.mapper.keep_polygons = True
dataloader.train.mapper.recompute_boxes = False
dataloader.test.mapper.image_format = "BGR"
dataloader.train.mapper.augmentations = [
    L(multi_scale)(
        short_edge_length=[640, 672, 704, 736, 768, 800],
        max_size=1333,
        sample_style="choice",
        crop=False,
    )
]

train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
train.max_iter = 270_000
train.total_batch_size = 16

lr_multiplier = multi_step(train.max_iter, (210_000, 250_000), warmup_iters=1000)
