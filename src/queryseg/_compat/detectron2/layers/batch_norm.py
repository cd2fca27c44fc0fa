"""Normalisation layers and `get_norm`, which makes one from the name used in configs."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from fvcore.nn.distributed import differentiable_all_reduce
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.utils import comm

Norm: TypeAlias = str | Callable[[int], nn.Module] | None


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and affine parameters are constants (buffers).

    Starts as the identity: weight 1, bias 0, mean 0, variance 1 - eps. Converted Caffe2 models hold
    weight and bias only (the statistics are folded into them); loading one leaves mean 0 and
    variance 1.

    Args:
        num_features: channels C.
        eps: added to the variance.
    """

    _version = 3

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features) - eps)
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W), in the dtype of `x`.

        Where a gradient flows to `x`, it is computed as a product and a sum: the backward of
        `F.batch_norm` would also form gradients for the constants.
        """
        if not x.requires_grad:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, training=False, eps=self.eps)
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * _per_channel(scale).to(x.dtype) + _per_channel(shift).to(x.dtype)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, Any],
        *args: Any,
    ) -> None:
        if (local_metadata.get("version") or 0) < 2:
            for name, make in (
                ("running_mean", torch.zeros_like),
                ("running_var", torch.ones_like),
            ):
                state_dict.setdefault(prefix + name, make(getattr(self, name)))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        """Channels and eps."""
        return f"num_features={self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Replace every batch norm in `module` by a frozen one with the same numbers.

        Returns:
            `module` itself, changed in place; a new module if it is a batch norm.
        """
        if not isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            for name, child in module.named_children():
                converted = cls.convert_frozen_batchnorm(child)
                if converted is not child:
                    module.add_module(name, converted)
            return module
        frozen = cls(module.num_features, module.eps)
        if module.affine:
            frozen.weight = module.weight.detach().clone()
            frozen.bias = module.bias.detach().clone()
        frozen.running_mean = module.running_mean
        frozen.running_var = module.running_var
        frozen.num_batches_tracked = module.num_batches_tracked
        return frozen


class NaiveSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes, written with one differentiable all-reduce.

    Args:
        stats_mode: "" weighs every process equally (no process may have an empty batch); "N" weighs
            each by its number of images, which may be 0.
        *args, **kwargs: those of `nn.BatchNorm2d`.
    """

    def __init__(self, *args: Any, stats_mode: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert stats_mode in ("", "N"), f"stats_mode must be '' or 'N', got {stats_mode!r}"
        self._stats_mode = stats_mode

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W); float16 is computed in float32."""
        if comm.get_world_size() == 1 or not self.training:
            return super().forward(input)
        x = input.float() if input.dtype == torch.float16 else input
        mean, mean_of_square, momentum = self._global_moments(x)
        var = mean_of_square - mean * mean
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        self.running_mean += momentum * (mean.detach() - self.running_mean)
        self.running_var += momentum * (var.detach() - self.running_var)
        return (x * _per_channel(scale) + _per_channel(shift)).to(input.dtype)

    def _global_moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """E[x] and E[x^2], each (C,), over all processes, and the momentum to use."""
        batch, channels = x.shape[:2]
        if self._stats_mode == "":
            assert batch > 0, 'NaiveSyncBatchNorm(stats_mode="") does not support an empty batch.'
            moments = torch.cat([x.mean(dim=[0, 2, 3]), (x * x).mean(dim=[0, 2, 3])])
            moments = differentiable_all_reduce(moments) * (1.0 / comm.get_world_size())
            mean, mean_of_square = moments.split(channels)
            return mean, mean_of_square, self.momentum
        if batch == 0:
            packed = x.new_zeros(2 * channels + 1) + x.sum()  # keeps the gradient path to x
        else:
            moments = [x.mean(dim=[0, 2, 3]), (x * x).mean(dim=[0, 2, 3]), x.new_ones(1)]
            packed = torch.cat(moments)
        packed = differentiable_all_reduce(packed * batch)
        total = packed[-1].detach()
        mean, mean_of_square, _ = torch.split(packed / total.clamp(min=1), channels)
        return mean, mean_of_square, total.clamp(max=1) * self.momentum


class LayerNorm(nn.Module):
    """Layer norm over the channels of (B, C, H, W) feature maps.

    Args:
        normalized_shape: channels C.
        eps: added to the variance.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps
        self.normalized_shape = (normalized_shape,)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in and out."""
        centred = x - x.mean(1, keepdim=True)
        variance = centred.pow(2).mean(1, keepdim=True)
        normalised = centred / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * normalised + self.bias[:, None, None]


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": partial(nn.GroupNorm, 32),
    "nnSyncBN": nn.SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": partial(NaiveSyncBatchNorm, stats_mode="N"),
    "LN": LayerNorm,
}


def get_norm(norm: Norm, out_channels: int) -> nn.Module | None:
    """Make the normalisation layer a config asks for.

    Args:
        norm: BN, SyncBN, FrozenBN, GN (32 groups), LN, nnSyncBN, naiveSyncBN or naiveSyncBN_N; or a
            callable from a channel count to a module; "" or `None` for no norm.
        out_channels: channels to normalise.

    Raises:
        KeyError: an unknown name.
    """
    if norm is None or norm == "":
        return None
    if isinstance(norm, str):
        if norm not in _NORMS:
            raise KeyError(f"unknown norm {norm!r}: use one of {', '.join(_NORMS)}")
        norm = _NORMS[norm]
    return norm(out_channels)


def _per_channel(values: Tensor) -> Tensor:
    return values.reshape(1, -1, 1, 1)
