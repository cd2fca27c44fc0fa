"""Residual networks (https://arxiv.org/abs/1512.03385)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2._subset import outside
from detectron2.layers import CNNBlockBase, Conv2d, DeformConv, ModulatedDeformConv, get_norm
from detectron2.layers.batch_norm import Norm

from .backbone import Backbone

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class _ResidualBlock(CNNBlockBase, ABC):
    """relu(shortcut(x) + residual(x)); the shortcut is a 1x1 convolution if channels change."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = (
            _conv(in_channels, out_channels, 1, norm, stride=stride)
            if in_channels != out_channels
            else None
        )

    @abstractmethod
    def residual(self, x: Tensor) -> Tensor:
        """The branch that learns, without the last ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        out = self.residual(x)
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions, the block of ResNet-18 and ResNet-34.

    Args:
        stride: of the first convolution.
        norm: after every convolution, as `get_norm` takes it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Norm = "BN"
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride, padding=1)
        self.conv2 = _conv(out_channels, out_channels, 3, norm, padding=1)
        _msra_fill(self.conv1, self.conv2, self.shortcut)

    def residual(self, x: Tensor) -> Tensor:
        """Two convolutions with a ReLU between."""
        return self.conv2(F.relu_(self.conv1(x)))


class BottleneckBlock(_ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions, the block of ResNet-50, -101 and -152.

    Args:
        bottleneck_channels: channels of the 3x3 convolution.
        stride: of the 3x3 convolution, or of the first 1x1 if `stride_in_1x1` (as in the weights
            that MSRA published).
        num_groups: groups of the 3x3 convolution.
        norm: after every convolution, as `get_norm` takes it.
        dilation: of the 3x3 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        width = bottleneck_channels
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, width, 1, norm, stride=stride_1x1)
        self.conv2 = _conv(
            width,
            width,
            3,
            norm,
            stride=stride_3x3,
            padding=dilation,
            groups=num_groups,
            dilation=dilation,
        )
        self.conv3 = _conv(width, out_channels, 1, norm)
        _msra_fill(self.conv1, self.conv2, self.conv3, self.shortcut)

    def residual(self, x: Tensor) -> Tensor:
        """Three convolutions with ReLUs between."""
        return self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))


class DeformBottleneckBlock(_ResidualBlock):
    """`BottleneckBlock` with a deformable 3x3 convolution.

    Args:
        deform_modulated: use `ModulatedDeformConv`.
        deform_num_groups: groups of channels with offsets of their own.
        Others: those of `BottleneckBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.deform_modulated = deform_modulated
        width = bottleneck_channels
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        values_per_point = 3 if deform_modulated else 2
        window = {"stride": stride_3x3, "padding": dilation, "dilation": dilation}
        self.conv1 = _conv(in_channels, width, 1, norm, stride=stride_1x1)
        self.conv2_offset = Conv2d(width, 9 * values_per_point * deform_num_groups, 3, **window)
        self.conv2 = (ModulatedDeformConv if deform_modulated else DeformConv)(
            width,
            width,
            3,
            bias=False,
            groups=num_groups,
            deformable_groups=deform_num_groups,
            norm=get_norm(norm, width),
            **window,
        )
        self.conv3 = _conv(width, out_channels, 1, norm)
        _msra_fill(self.conv1, self.conv2, self.conv3, self.shortcut)
        nn.init.zeros_(self.conv2_offset.weight)
        nn.init.zeros_(self.conv2_offset.bias)

    def residual(self, x: Tensor) -> Tensor:
        """The convolutions of the bottleneck, the middle one sampled at predicted offsets."""
        out = F.relu_(self.conv1(x))
        offset = self.conv2_offset(out)
        if self.deform_modulated:
            # The first two thirds are the offsets, in the order the kernel wants them.
            points = offset.shape[1] // 3
            offset, mask = offset.split([2 * points, points], dim=1)
            out = self.conv2(out, offset, mask.sigmoid())
        else:
            out = self.conv2(out, offset)
        return self.conv3(F.relu_(out))


class BasicStem(CNNBlockBase):
    """A 7x7 convolution of stride 2, a ReLU and a 3x3 max pooling of stride 2.

    Args:
        norm: after the convolution, as `get_norm` takes it.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2, padding=3)
        _msra_fill(self.conv1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / 4, W / 4)."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class ResNet(Backbone):
    """A stem and up to four stages, `res2` to `res5`, each a sequence of blocks.

    Args:
        stem: first block.
        stages: blocks of each stage. Stages above the highest one in `out_features` are dropped.
        num_classes: if given, a classifier `linear` follows the last stage.
        out_features: names of the outputs, out of "stem", "res2".."res5" and "linear"; the last
            layer if `None`.
        freeze_at: see `freeze`.
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.num_classes = num_classes
        stride, channels = stem.stride, stem.out_channels
        self._out_feature_strides = {"stem": stride}
        self._out_feature_channels = {"stem": channels}
        if out_features is not None:
            needs = {f"res{i + 2}": i + 1 for i in range(len(stages))} | {"linear": len(stages)}
            stages = stages[: max(needs.get(name, 0) for name in out_features)]

        self.stages: list[nn.Sequential] = []
        self.stage_names = tuple(f"res{i + 2}" for i in range(len(stages)))
        for name, blocks in zip(self.stage_names, stages):
            assert len(blocks) > 0, f"{name} has no blocks"
            for block in blocks:
                assert isinstance(block, CNNBlockBase), f"{type(block)} is not a CNNBlockBase"
            stage = nn.Sequential(*blocks)
            self.add_module(name, stage)
            self.stages.append(stage)
            stride *= math.prod(block.stride for block in blocks)
            channels = blocks[-1].out_channels
            self._out_feature_strides[name] = stride
            self._out_feature_channels[name] = channels

        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(channels, num_classes)
            nn.init.normal_(self.linear.weight, std=0.01)

        children = [name for name, _ in self.named_children()]
        self._out_features = children[-1:] if out_features is None else list(out_features)
        assert len(self._out_features) > 0, "out_features is empty"
        for name in self._out_features:
            assert name in children, f"{name} is not one of {', '.join(children)}"
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the outputs named in `out_features` of images (B, C, H, W)."""
        assert x.dim() == 4, f"expected (B, C, H, W), got {tuple(x.shape)}"
        outputs = {"stem": self.stem(x)}
        x = outputs["stem"]
        for name, stage in zip(self.stage_names, self.stages):
            x = outputs[name] = stage(x)
        if self.num_classes is not None:
            outputs["linear"] = self.linear(torch.flatten(self.avgpool(x), 1))
        return {name: value for name, value in outputs.items() if name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> "ResNet":
        """Stop training the first layers: 1 = the stem, 2 = the stem and res2, and so on."""
        if freeze_at >= 1:
            self.stem.freeze()
        for stage in self.stages[: max(freeze_at - 1, 0)]:
            for block in stage:
                block.freeze()
        return self

    @staticmethod
    def make_stage(
        block_class: type[CNNBlockBase],
        num_blocks: int,
        *,
        in_channels: int,
        out_channels: int,
        **kwargs: Any,
    ) -> list[CNNBlockBase]:
        """Make the blocks of one stage.

        Args:
            block_class: of every block.
            num_blocks: how many.
            in_channels: of the first block.
            out_channels: of every block.
            **kwargs: arguments of `block_class`; one named `x_per_block` is a list that holds the
                value of `x` for each block.
        """
        shared: dict[str, Any] = {}
        per_block: dict[str, Sequence[Any]] = {}
        for key, value in kwargs.items():
            name = key.removesuffix("_per_block")
            if name == key:
                shared[name] = value
                continue
            assert len(value) == num_blocks, f"{key} has {len(value)} values, not {num_blocks}"
            assert name not in kwargs, f"both {key} and {name} are given"
            per_block[name] = value
        blocks = []
        for i in range(num_blocks):
            own = {name: values[i] for name, values in per_block.items()}
            blocks.append(
                block_class(in_channels=in_channels, out_channels=out_channels, **shared, **own)
            )
            in_channels = out_channels
        return blocks

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """Make the four stages of a standard ResNet.

        Args:
            depth: 18, 34, 50, 101 or 152.
            block_class: `BasicBlock` below 50 layers, else `BottleneckBlock`, if `None`.
            **kwargs: more arguments of `make_stage`, other than channels and strides.
        """
        bottleneck = depth >= 50
        if block_class is None:
            block_class = BottleneckBlock if bottleneck else BasicBlock
        stages, in_channels = [], 64
        for i, num_blocks in enumerate(BLOCKS_PER_STAGE[depth]):
            width = 64 * 2**i
            if bottleneck:
                kwargs["bottleneck_channels"] = width
            out_channels = 4 * width if bottleneck else width
            stage = ResNet.make_stage(
                block_class,
                num_blocks,
                stride_per_block=[1 if i == 0 else 2] + [1] * (num_blocks - 1),
                in_channels=in_channels,
                out_channels=out_channels,
                **kwargs,
            )
            stages.append(stage)
            in_channels = out_channels
        return stages


ResNetBlockBase = CNNBlockBase
make_stage = ResNet.make_stage

__getattr__ = outside(__name__, "build_resnet_backbone")


def _conv(in_channels: int, out_channels: int, size: int, norm: Norm, **kwargs: Any) -> Conv2d:
    norm_layer = get_norm(norm, out_channels)
    return Conv2d(in_channels, out_channels, size, bias=False, norm=norm_layer, **kwargs)


def _msra_fill(*convs: nn.Module | None) -> None:
    for conv in convs:
        if conv is not None:
            weight_init.c2_msra_fill(conv)
