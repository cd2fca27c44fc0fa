"""H-Deformable-DETR on ResNet-50 with the release's recipe of 36 epochs: 50.0 box AP on COCO val.

The family file of the detectors: the others import it and change a few lines. Files of detrex need
`model.class_numbering=contiguous model.reference_eps=1e-3`.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BasicStem, ResNet

from queryseg.data.augmentations import multi_scale
from queryseg.detectors import build_h_detr

from ..common.data import dataloader
from ..common.optim import adamw as optimizer
from ..common.schedule import multi_step
from ..common.train import train

model = L(build_h_detr)(
    num_classes=80,
    class_numbering="coco_ids",
    backbone=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
        out_features=["res2", "res3", "res4", "res5"],
        freeze_at=2,
    ),
    in_channels={"res3": 512, "res4": 1024, "res5": 2048},
    num_levels=4,
    embed_dim=256,
    num_heads=8,
    ffn_dim=2048,
    encoder_layers=6,
    decoder_layers=6,
    num_queries=300,
    num_one_to_many=1500,
    repeats=6,
    position_temperature=10000.0,
    position_offset=-0.5,
    reference_eps=1e-5,
    max_detections=100,
)

dataloader.train.mapper.augmentations = [
    L(multi_scale)(
        short_edge_length=[480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
        max_size=1333,
        crop=True,
        crop_max_size=4200,
    )
]
dataloader.train.mapper.recompute_boxes = False
dataloader.train.dataset.filter_empty = False

optimizer.lr = 2e-4
optimizer.weight_decay = 1e-4
optimizer.params.lr_multipliers = {"backbone": 0.1, "sampling_offsets": 0.1}
optimizer.params.weight_decay_norm = None
optimizer.params.weight_decay_embed = None

train.max_iter = 266_148
train.total_batch_size = 16
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
train.clip_grad.enabled = True
train.clip_grad.max_norm = 0.1
train.best_checkpoint.metric = "bbox/AP"

lr_multiplier = multi_step(train.max_iter, (221_790,))
