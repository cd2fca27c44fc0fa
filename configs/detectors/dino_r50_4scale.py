"""DINO on ResNet-50, four scales, with the release's recipe of 12 epochs: 49.0 box AP on COCO val.

Files of detrex need `model.class_numbering=contiguous model.share_heads=false
model.extra_label=false model.position_temperature=10000 model.position_offset=-0.5`.
"""

from detectron2.config import LazyCall as L

from queryseg.detectors import build_dino

from ..common.schedule import multi_step
from .hdetr_r50 import dataloader, optimizer, train
from .hdetr_r50 import model as _hdetr

model = L(build_dino)(
    num_classes=80,
    class_numbering="coco_ids",
    backbone=_hdetr.backbone,
    in_channels={"res3": 512, "res4": 1024, "res5": 2048},
    num_levels=4,
    embed_dim=256,
    num_heads=8,
    ffn_dim=2048,
    encoder_layers=6,
    decoder_layers=6,
    num_queries=900,
    share_heads=True,
    extra_label=True,
    denoising_queries=100,
    box_noise=0.4,
    position_temperature=20.0,
    position_offset=0.0,
    reference_eps=1e-3,
    max_detections=300,
)

optimizer.lr = 1e-4
optimizer.params.lr_multipliers = {"backbone": 0.1}
train.max_iter = 88_716
lr_multiplier = multi_step(train.max_iter, (81_323,))
