"""Building blocks of convolutional backbones."""

from collections.abc import Callable

import fvcore.nn.weight_init as weight_init
from torch import Tensor, nn

from .batch_norm import FrozenBatchNorm2d, Norm, get_norm
from .wrappers import Conv2d


class CNNBlockBase(nn.Module):
    """A block from (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> "CNNBlockBase":
        """Stop training this block: no gradients, batch norms become `FrozenBatchNorm2d`."""
        self.requires_grad_(False)
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


class DepthwiseSeparableConv2d(nn.Module):
    """A k x k depthwise convolution, then a 1 x 1 convolution.

    Args:
        norm1, norm2: norms of the two convolutions, as `get_norm` takes them.
        activation1, activation2: callables after each norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: int = 1,
        dilation: int = 1,
        *,
        norm1: Norm = None,
        activation1: Callable[[Tensor], Tensor] | None = None,
        norm2: Norm = None,
        activation2: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.depthwise = Conv2d(
            in_channels,
            in_channels,
            kernel_size,
            padding=padding,
            dilation=dilation,
            groups=in_channels,
            bias=not norm1,
            norm=get_norm(norm1, in_channels),
            activation=activation1,
        )
        self.pointwise = Conv2d(
            in_channels,
            out_channels,
            kernel_size=1,
            bias=not norm2,
            norm=get_norm(norm2, out_channels),
            activation=activation2,
        )
        for conv in (self.depthwise, self.pointwise):
            weight_init.c2_msra_fill(conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H', W')."""
        return self.pointwise(self.depthwise(x))
