"""ResNet-D: a deep stem, pooled shortcuts, and deformable convolutions in chosen stages."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
EXPANSION = 4
STEM_WIDTH = 64
NUM_TAPS = 9


class ShortcutD(nn.Sequential):
    """Shortcut between two widths: average pooling does the stride, so no pixel is skipped.

    Args:
        in_channels: width before.
        out_channels: width after.
        stride: 1 or 2.
        norm: norm layer by Detectron2's names.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str) -> None:
        pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
        super().__init__(
            nn.Identity() if stride == 1 else pool,
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            get_norm(norm, out_channels),
        )


class BottleneckD(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 has the stride and may deform.

    The deformable form is the first version, without modulation: a plain 3x3 convolution predicts
    where each tap looks. Under autocast it runs in float32, as offsets need that.

    Args:
        in_channels: width before the block.
        width: inner width; the block's output is four times as wide.
        stride: of the 3x3 convolution and the shortcut.
        norm: norm layer by Detectron2's names.
        deform: whether the 3x3 convolution deforms.
    """

    def __init__(
        self, *, in_channels: int, width: int, stride: int, norm: str, deform: bool
    ) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = get_norm(norm, width)
        self.conv2_offset = nn.Conv2d(width, 2 * NUM_TAPS, 3, stride, padding=1) if deform else None
        spatial = DeformConv2d if deform else nn.Conv2d
        self.conv2 = spatial(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = get_norm(norm, width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = get_norm(norm, out_channels)
        changes = stride != 1 or in_channels != out_channels
        self.downsample = (
            ShortcutD(in_channels, out_channels, stride, norm) if changes else nn.Identity()
        )
        if self.conv2_offset is not None:
            self._start_undeformed(self.conv2_offset)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, 4 * width, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self._spatial(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))

    def _spatial(self, x: Tensor) -> Tensor:
        if self.conv2_offset is None:
            return self.conv2(x)
        offsets = self.conv2_offset(x)
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.conv2.weight.dtype
            return self.conv2(x.to(dtype), offsets.to(dtype))

    def _start_undeformed(self, conv2_offset: nn.Conv2d) -> None:
        """No offsets at first, and a block that starts as its shortcut where its norm learns.

        Differs from official: a frozen norm is left alone. Zero there would cut the block off for
        good when training starts without a checkpoint.
        """
        nn.init.zeros_(conv2_offset.weight)
        if conv2_offset.bias is not None:
            nn.init.zeros_(conv2_offset.bias)
        nn.init.kaiming_uniform_(self.conv2.weight, nonlinearity="relu")
        if isinstance(self.bn3.weight, nn.Parameter):
            nn.init.zeros_(self.bn3.weight)


class ResNetD(Backbone):
    """ResNet-50-d and deeper, under timm's parameter names, so that its weights load as they are.

    With deformable convolutions in the last two stages it is the "R50-d-DCN" of FastInst (Table 1)
    and SparseInst; the paper cites their second version, the release has the first.

    Args:
        depth: 50, 101 or 152.
        norm: norm layer by Detectron2's names.
        deform_stages: stages, among res2 to res5, whose blocks deform.
        out_features: stages to return.

    Raises:
        ValueError: the depth is unknown.
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        norm: str = "FrozenBN",
        deform_stages: Sequence[str] = ("res4", "res5"),
        out_features: Sequence[str] = ("res3", "res4", "res5"),
    ) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"depth is {depth}; expected one of {sorted(BLOCKS)}")
        half = STEM_WIDTH // 2
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
            get_norm(norm, half),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1, bias=False),
            get_norm(norm, half),
            nn.ReLU(),
            nn.Conv2d(half, STEM_WIDTH, 3, padding=1, bias=False),
        )
        self.bn1 = get_norm(norm, STEM_WIDTH)
        self._out_features = list(out_features)
        self._out_feature_channels: dict[str, int] = {}
        self._out_feature_strides: dict[str, int] = {}
        in_channels = STEM_WIDTH
        for index, count in enumerate(BLOCKS[depth]):
            name, width, stride = f"res{index + 2}", 64 * 2**index, 1 if index == 0 else 2
            blocks = [
                BottleneckD(
                    in_channels=in_channels if block == 0 else EXPANSION * width,
                    width=width,
                    stride=stride if block == 0 else 1,
                    norm=norm,
                    deform=name in deform_stages,
                )
                for block in range(count)
            ]
            in_channels = EXPANSION * width
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
            self._out_feature_channels[name] = in_channels
            self._out_feature_strides[name] = 4 * 2**index

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to the maps of `out_features` by name."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        outputs = {}
        for index, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4)):
            x = stage(x)
            if f"res{index + 2}" in self._out_features:
                outputs[f"res{index + 2}"] = x
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of `out_features`."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }
