"""Mask Transfiner on ResNet-50-FPN with deformable convolutions, 3x: 40.5 AP on COCO test-dev.

The release deforms without modulation (the first version); the paper cites the second, which is
`model.backbone.bottom_up.stages.deform_modulated=true`.
"""

from detectron2.config import LazyCall as L

from queryseg.backbones.deformable_stages import make_deformable_stages

from .mask_transfiner_r50_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages = L(make_deformable_stages)(
    depth=50,
    deform_stages=["res3", "res4", "res5"],
    deform_modulated=False,
    norm="FrozenBN",
    stride_in_1x1=True,
)
