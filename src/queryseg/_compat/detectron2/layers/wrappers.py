"""Thin additions to torch's layers and functions: fused norm and activation, empty inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BatchNorm2d = nn.BatchNorm2d
ConvTranspose2d = nn.ConvTranspose2d
Linear = nn.Linear
interpolate = F.interpolate


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` followed by an optional norm, then an optional activation.

    Args:
        norm: module applied to the output of the convolution (its parameters are `norm.*`).
        activation: callable applied last.
        *args, **kwargs: those of `nn.Conv2d`.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H', W'); a batch of zero images is fine."""
        return finish_conv(super().forward(x), self.norm, self.activation)


def finish_conv(
    x: Tensor, norm: nn.Module | None, activation: Callable[[Tensor], Tensor] | None
) -> Tensor:
    """Apply what follows a convolution: the norm, then the activation, each if present."""
    if norm is not None:
        x = norm(x)
    return x if activation is None else activation(x)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """`torch.cat` of a list or tuple, without a copy when it holds one tensor."""
    assert isinstance(tensors, (list, tuple)), f"expected a list or tuple, got {type(tensors)}"
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def empty_input_loss_func_wrapper(loss_func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make a mean-reduced loss of no elements 0 (still in the graph) instead of NaN."""

    def wrapped(input: Tensor, target: Tensor, *, reduction: str = "mean", **kwargs: Any) -> Tensor:
        if reduction == "mean" and target.numel() == 0:
            return input.sum() * 0.0
        return loss_func(input, target, reduction=reduction, **kwargs)

    return wrapped


cross_entropy = empty_input_loss_func_wrapper(F.cross_entropy)


def nonzero_tuple(x: Tensor) -> tuple[Tensor, ...]:
    """Indices of the non-zero elements, one int64 tensor per dimension."""
    return x.nonzero(as_tuple=True)


def shapes_to_tensor(x: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Turn a list of sizes into an integer tensor on `device`."""
    return torch.as_tensor(x, device=device)


def move_device_like(src: Tensor, dst: Tensor) -> Tensor:
    """`src` on the device of `dst`."""
    return src.to(dst.device)
