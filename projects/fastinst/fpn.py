"""Feature pyramid of FastInst: projections, a context module on the coarsest map, top-down sums."""

from collections.abc import Mapping

import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from fvcore.nn import weight_init
from torch import Tensor, nn


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear to (H, W)."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def projection(in_channels: int, embed_dim: int) -> Conv2d:
    """1x1 convolution with group norm, from a backbone width to C."""
    conv = Conv2d(in_channels, embed_dim, 1, bias=False, norm=get_norm("GN", embed_dim))
    weight_init.c2_xavier_fill(conv)
    return conv


def smoothing(embed_dim: int) -> Conv2d:
    """3x3 convolution with group norm and ReLU, C to C."""
    norm = get_norm("GN", embed_dim)
    conv = Conv2d(embed_dim, embed_dim, 3, padding=1, bias=False, norm=norm, activation=F.relu)
    weight_init.c2_xavier_fill(conv)
    return conv


class PlainTop(nn.Module):
    """The coarsest map, only projected.

    Args:
        in_channels: width of the backbone map.
        embed_dim: C.
    """

    def __init__(self, *, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.projection = projection(in_channels, embed_dim)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, C, h, w)."""
        return self.projection(feature)


class FPN(nn.Module):
    """Top-down pyramid whose next level continues from the smoothed output of the last.

    Unlike the usual FPN the sum is passed on after its 3x3 convolution, and upsampling is bilinear
    (section 3.2; the paper leaves both open, this is the release).

    Args:
        in_channels: backbone feature name -> channels, finest first.
        embed_dim: C of all levels.
        top: from the coarsest backbone map to its (B, C, h, w) summary.
    """

    def __init__(self, *, in_channels: Mapping[str, int], embed_dim: int, top: nn.Module) -> None:
        super().__init__()
        self.in_features = tuple(in_channels)
        widths = list(in_channels.values())
        self.laterals = nn.ModuleList(projection(width, embed_dim) for width in widths[:-1])
        self.top = top
        self.outputs = nn.ModuleList(smoothing(embed_dim) for _ in widths)

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Backbone maps to [E3, E4, E5], each (B, C, h, w), finest first."""
        *finer, coarsest = (features[name] for name in self.in_features)
        pyramid = [self.outputs[-1](self.top(coarsest))]
        for lateral, output, feature in zip(
            reversed(self.laterals), reversed(self.outputs[:-1]), reversed(finer)
        ):
            side = lateral(feature)
            pyramid.insert(0, output(side + upsample(pyramid[0], side.shape[-2:])))
        return pyramid
