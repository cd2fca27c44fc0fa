"""QueryInst with 300 queries on ResNeXt-101 64x4d with deformable convolutions in its last three
stages, trained on crops: 44.6 mask AP on COCO test-dev (Table 1).

The release has no config for it; the second version of deformable convolutions, as in
mmdetection's backbone of that name, is the likely one.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock, DeformBottleneckBlock

from queryseg.backbones import FixedBatchNorm

from .queryinst_r50_300q_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.stages = [
    L(ResNet.make_stage)(
        block_class=DeformBottleneckBlock if _index else BottleneckBlock,
        num_blocks=_blocks,
        stride_per_block=[2 if _index else 1, *[1] * (_blocks - 1)],
        in_channels=128 * 2**_index if _index else 64,
        bottleneck_channels=256 * 2**_index,
        out_channels=256 * 2**_index,
        num_groups=64,
        stride_in_1x1=False,
        norm=FixedBatchNorm,
        **({"deform_modulated": True} if _index else {}),
    )
    for _index, _blocks in enumerate((3, 4, 23, 3))
]
train.init_checkpoint = "https://download.pytorch.org/models/resnext101_64x4d-173b62eb.pth"
