"""Mask R-CNN on ResNet-101-FPN with Detectron2's recipe: 42.9 box AP and 38.6 mask AP on COCO val.

The baseline that QueryInst compares schedules and crops with (its Table 8); longer schedules and
crops are overrides, listed in QueryInst's README.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead

from queryseg.data.augmentations import multi_scale
from queryseg.mask_rcnn import MaskRCNN

from ..common.data import dataloader
from ..common.faster_rcnn_fpn import parts as _parts
from ..common.optim import sgd as optimizer
from ..common.schedule import multi_step
from ..common.train import train

model = L(MaskRCNN)(**_parts)
model.backbone.bottom_up.stages.depth = 101
model.roi_heads.mask_pooler = L(ROIPooler)(
    output_size=14,
    scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32],
    sampling_ratio=0,
    pooler_type="ROIAlignV2",
)
model.roi_heads.mask_head = L(MaskRCNNConvUpsampleHead)(
    input_shape=L(ShapeSpec)(channels="${....backbone.out_channels}", height=14, width=14),
    num_classes="${..num_classes}",
    conv_dims=[256, 256, 256, 256, 256],
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
