"""Deformable convolutions on torchvision's kernel (CPU and CUDA, forward and backward)."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.utils import _pair
from torchvision.ops import deform_conv2d

from .wrappers import finish_conv

Size: TypeAlias = int | tuple[int, int]


class _DeformConvBase(nn.Module):
    """Parameters and the kernel call that both versions share."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Size,
        dilation: Size,
        groups: int,
        deformable_groups: int,
        bias: bool,
        norm: nn.Module | None,
        activation: Callable[[Tensor], Tensor] | None,
    ) -> None:
        super().__init__()
        assert in_channels % groups == 0, f"{in_channels} input channels in {groups} groups"
        assert out_channels % groups == 0, f"{out_channels} output channels in {groups} groups"
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.deformable_groups = deformable_groups
        self.with_bias = bias
        self.norm = norm
        self.activation = activation
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def _convolve(self, x: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        geometry = (self.stride, self.padding, self.dilation)
        if x.numel() == 0:
            # No images: the kernel refuses them, a plain convolution gives the right shape.
            return F.conv2d(x, self.weight, self.bias, *geometry, self.groups)
        points = self.deformable_groups * self.kernel_size[0] * self.kernel_size[1]
        _expect_channels("offset", offset, 2 * points)
        if mask is not None:
            _expect_channels("mask", mask, points)
        x = deform_conv2d(x, offset, self.weight, self.bias, *geometry, mask)
        return finish_conv(x, self.norm, self.activation)

    def extra_repr(self) -> str:
        """The geometry, as the constructor takes it."""
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
        names += ("groups", "deformable_groups")
        shown = [f"{name}={getattr(self, name)}" for name in names]
        return ", ".join([*shown, f"bias={self.with_bias}"])


class DeformConv(_DeformConvBase):
    """Deformable convolution (https://arxiv.org/abs/1703.06211), without bias.

    Args:
        deformable_groups: groups of input channels with offsets of their own.
        norm: module applied to the output.
        activation: callable applied last.
        Others: those of `nn.Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        assert not bias, "DeformConv has no bias"
        geometry = (_pair(stride), _pair(padding), _pair(dilation), groups, deformable_groups)
        super().__init__(in_channels, out_channels, kernel_size, *geometry, bias, norm, activation)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """Convolve `x` (B, C_in, H, W) where `offset` moves the kernel's points.

        Args:
            offset: (B, 2 * deformable_groups * kh * kw, H', W'): (dy, dx) in pixels per point.

        Returns:
            (B, C_out, H', W').

        Raises:
            RuntimeError: `offset` has another number of channels.
        """
        return self._convolve(x, offset, None)


class ModulatedDeformConv(_DeformConvBase):
    """Deformable convolution with a weight per point (https://arxiv.org/abs/1811.11168).

    Args: those of `DeformConv`; a bias by default.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        geometry = (stride, padding, dilation, groups, deformable_groups)
        super().__init__(in_channels, out_channels, kernel_size, *geometry, bias, norm, activation)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """As `DeformConv.forward`, with `mask` (B, deformable_groups * kh * kw, H', W').

        The mask is used as it is: apply the sigmoid before.
        """
        return self._convolve(x, offset, mask)


def _expect_channels(name: str, tensor: Tensor, channels: int) -> None:
    if tensor.shape[1] != channels:
        raise RuntimeError(f"{name} must have {channels} channels, got {tensor.shape[1]}")
