"""Stages of Detectron2's ResNet of which some deform."""

from collections.abc import Sequence
from typing import Any

from detectron2.modeling.backbone.resnet import BottleneckBlock, DeformBottleneckBlock, ResNet
from torch import Tensor, nn

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STEM_WIDTH = 64
EXPANSION = 4


def make_deformable_stages(
    *,
    depth: int,
    deform_stages: Sequence[str] = ("res3", "res4", "res5"),
    deform_modulated: bool = False,
    norm: str = "FrozenBN",
    stride_in_1x1: bool = True,
) -> list[list[nn.Module]]:
    """The four stages of a ResNet, under Detectron2's parameter names.

    Deformable convolutions stay in the precision of their weights under autocast: offsets need it,
    and not every kernel of them knows half types.

    Args:
        depth: 50, 101 or 152.
        deform_stages: stages whose 3x3 convolutions deform.
        deform_modulated: the second version of deformable convolution.
        norm: norm layer by Detectron2's names.
        stride_in_1x1: where a block has its stride; true for the models of MSRA.
    """
    stages, in_channels = [], STEM_WIDTH
    for number, count in enumerate(BLOCKS[depth]):
        width = STEM_WIDTH * 2**number
        deforms = f"res{number + 2}" in deform_stages
        options: dict[str, Any] = {"deform_modulated": deform_modulated} if deforms else {}
        stage = ResNet.make_stage(
            DeformBottleneckBlock if deforms else BottleneckBlock,
            count,
            stride_per_block=[1 if number == 0 else 2] + [1] * (count - 1),
            in_channels=in_channels,
            out_channels=EXPANSION * width,
            bottleneck_channels=width,
            stride_in_1x1=stride_in_1x1,
            norm=norm,
            **options,
        )
        if deforms:
            for block in stage:
                block.conv2.register_forward_pre_hook(_as_precise_as_weights)
        stages.append(stage)
        in_channels = EXPANSION * width
    return stages


def _as_precise_as_weights(conv: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    dtype = next(conv.parameters()).dtype
    return tuple(one.to(dtype) for one in inputs)
