"""Per-instance dynamic convolution (Fang et al., "Instances as Queries", section 3.2)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from queryseg.ops.library import define_backward, define_op
from queryseg.ops.precision import VALUE_DTYPES, autocast_value, compute_dtype


def dynamic_conv(
    features: Tensor,
    dynamic_weights: Tensor,
    norm_in_weight: Tensor,
    norm_in_bias: Tensor,
    norm_out_weight: Tensor,
    norm_out_bias: Tensor,
    *,
    eps: float = 1e-5,
) -> Tensor:
    """Pass each instance's region through two 1x1 convolutions whose weights are its own.

    For the T positions of an instance, x (T, C): y = ReLU(LayerNorm(x @ W_in)), of d channels,
    then ReLU(LayerNorm(y @ W_out)), of C again. Sparse R-CNN's dynamic head (Sun et al., section
    3.3), which QueryInst uses on 7 x 7 boxes and on 14 x 14 masks. The layer norms are the same
    for all instances; their variance is the biased one.

    Nothing but the arguments is kept for the backward pass, which computes the rest again. Sums are
    float32 (float64) and only the result is rounded to half precision. Under autocast features and
    dynamic weights are cast to the autocast dtype, the layer norms stay float32.

    Args:
        features: (N, C, R, R'), as RoIAlign gives them, T = R * R', row by row; or (N, T, C).
            Read as they are in either layout, channels-last memory included; float32, float64,
            float16 or bfloat16.
        dynamic_weights: (N, 2 * C * d), dtype of the features: W_in (C, d), then W_out (d, C), both
            row by row.
        norm_in_weight, norm_in_bias: (d,), affine part of the first layer norm, which gives d.
        norm_out_weight, norm_out_bias: (C,), of the second.
        eps: added to both variances.

    Returns:
        (N, T, C), dtype of the features. As a map: `output.mT.unflatten(2, (R, R'))`, a view in
        channels-last memory.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together.

    >>> features = torch.tensor([[[1.0], [3.0]], [[2.0], [0.0]]]).view(1, 2, 2, 1)  # C = 2
    >>> weights = torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]])  # d = 2: identities
    >>> one, zero = torch.ones(2), torch.zeros(2)
    >>> dynamic_conv(features, weights, one, zero, one, zero).round(decimals=3)
    tensor([[[0., 1.],
             [1., 0.]]])
    """
    _check(
        features, dynamic_weights, norm_in_weight, norm_in_bias, norm_out_weight, norm_out_bias, eps
    )
    features, dynamic_weights = autocast_value(features), autocast_value(dynamic_weights)
    if features.dtype != dynamic_weights.dtype:
        raise ValueError(
            f"dynamic_weights must have the dtype of features, {features.dtype}, got "
            f"{dynamic_weights.dtype}"
        )
    compute = compute_dtype(features)
    norms = (norm_in_weight, norm_in_bias, norm_out_weight, norm_out_bias)
    return torch.ops.queryseg.dynamic_conv(
        _without_copy(features), dynamic_weights, *(norm.to(compute) for norm in norms), eps
    )


def _without_copy(features: Tensor) -> Tensor:
    """Channels-last maps as (N, T, C), so that both layouts are contiguous for the operator."""
    if (
        features.dim() == 4
        and not features.is_contiguous()
        and features.is_contiguous(memory_format=torch.channels_last)
    ):
        return features.permute(0, 2, 3, 1).flatten(1, 2)
    return features


class _Normed(NamedTuple):
    """A layer norm's result without its affine part, and the reciprocal of the deviation."""

    normed: Tensor
    scale: Tensor


def dynamic_conv_reference(
    features: Tensor,
    dynamic_weights: Tensor,
    norm_in_weight: Tensor,
    norm_in_bias: Tensor,
    norm_out_weight: Tensor,
    norm_out_bias: Tensor,
    eps: float,
) -> Tensor:
    """`dynamic_conv` in pure torch.

    Args and returns as there; the layer norms have the compute dtype.
    """
    _check(
        features, dynamic_weights, norm_in_weight, norm_in_bias, norm_out_weight, norm_out_bias, eps
    )
    x, w_in, w_out = _matrices(features, dynamic_weights, norm_in_weight)
    hidden = _affine(_norm(x @ w_in, eps), norm_in_weight, norm_in_bias).relu()
    output = _affine(_norm(hidden @ w_out, eps), norm_out_weight, norm_out_bias).relu()
    return output.to(features.dtype)


def dynamic_conv_backward_reference(
    grad_output: Tensor,
    features: Tensor,
    dynamic_weights: Tensor,
    norm_in_weight: Tensor,
    norm_in_bias: Tensor,
    norm_out_weight: Tensor,
    norm_out_bias: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `dynamic_conv_reference`.

    Written out, because autograd is out of reach where a dispatcher runs a fallback.

    Args:
        grad_output: (N, T, C).
        features and the others: as given to the forward pass.

    Returns:
        Gradients by features and dynamic weights, in their shape and dtype, and each instance's
        share of the layer norms' gradients, (N, 2 * d + 2 * C) in the order of the arguments.
    """
    _check(
        features, dynamic_weights, norm_in_weight, norm_in_bias, norm_out_weight, norm_out_bias, eps
    )
    x, w_in, w_out = _matrices(features, dynamic_weights, norm_in_weight)
    if grad_output.shape != x.shape:
        raise RuntimeError(f"grad_output has shape {tuple(grad_output.shape)}, unlike the output")
    inner = _norm(x @ w_in, eps)
    hidden = _affine(inner, norm_in_weight, norm_in_bias).relu()
    outer = _norm(hidden @ w_out, eps)
    grad = grad_output.to(x.dtype) * (_affine(outer, norm_out_weight, norm_out_bias) > 0)
    grad_norm_out = [(grad * outer.normed).sum(1), grad.sum(1)]
    grad = _through_norm(grad * norm_out_weight, outer)
    grad_w_out = hidden.mT @ grad
    grad = (grad @ w_out.mT) * (hidden > 0)
    grad_norm_in = [(grad * inner.normed).sum(1), grad.sum(1)]
    grad = _through_norm(grad * norm_in_weight, inner)
    grad_w_in = x.mT @ grad
    grad_features = grad @ w_in.mT
    if features.dim() == 4:
        grad_features = grad_features.mT.reshape(features.shape)
    grad_weights = torch.cat([grad_w_in.flatten(1), grad_w_out.flatten(1)], 1)
    return (
        grad_features.to(features.dtype).contiguous(),
        grad_weights.to(features.dtype),
        torch.cat([*grad_norm_in, *grad_norm_out], 1),
    )


def _matrices(
    features: Tensor, dynamic_weights: Tensor, norm_in_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, T, C) and weights (N, C, d), (N, d, C), in the compute dtype."""
    compute = norm_in_weight.dtype
    x = features if features.dim() == 3 else features.flatten(2).mT
    inner, channels = norm_in_weight.shape[0], x.shape[2]
    w_in, w_out = dynamic_weights.to(compute).split(channels * inner, 1)
    return (
        x.to(compute),
        w_in.unflatten(1, (channels, inner)),
        w_out.unflatten(1, (inner, channels)),
    )


def _norm(x: Tensor, eps: float) -> _Normed:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    return _Normed(centred * scale, scale)


def _affine(x: _Normed, weight: Tensor, bias: Tensor) -> Tensor:
    return x.normed * weight + bias


def _through_norm(grad: Tensor, x: _Normed) -> Tensor:
    """From the gradient of the normed values to that of the values."""
    mean = grad.mean(-1, keepdim=True)
    along = (grad * x.normed).mean(-1, keepdim=True)
    return x.scale * (grad - mean - x.normed * along)


def _check(
    features: Tensor,
    dynamic_weights: Tensor,
    norm_in_weight: Tensor,
    norm_in_bias: Tensor,
    norm_out_weight: Tensor,
    norm_out_bias: Tensor,
    eps: float,
) -> None:
    """Check the arguments of a call against each other.

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    if features.dim() not in (3, 4):
        raise ValueError(
            f"features must have shape (N, C, R, R) or (N, T, C), got {tuple(features.shape)}"
        )
    for name, tensor in (("features", features), ("dynamic_weights", dynamic_weights)):
        if tensor.dtype not in VALUE_DTYPES:
            raise ValueError(
                f"{name} must be float32, float64, float16 or bfloat16, got {tensor.dtype}"
            )
    channels = features.shape[1 if features.dim() == 4 else 2]
    if norm_in_weight.dim() != 1 or 0 in (channels, norm_in_weight.shape[0]):
        raise ValueError(
            f"features must have at least one channel, got {channels}, and norm_in_weight must "
            f"have shape (d,), d > 0, got {tuple(norm_in_weight.shape)}"
        )
    inner = norm_in_weight.shape[0]
    for name, tensor, shape in (
        ("dynamic_weights", dynamic_weights, (features.shape[0], 2 * channels * inner)),
        ("norm_in_weight", norm_in_weight, (inner,)),
        ("norm_in_bias", norm_in_bias, (inner,)),
        ("norm_out_weight", norm_out_weight, (channels,)),
        ("norm_out_bias", norm_out_bias, (channels,)),
    ):
        if tensor.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} for {channels} channels and d = {inner}, got "
                f"{tuple(tensor.shape)}"
            )
        if tensor.device != features.device:
            raise ValueError(f"{name} is on {tensor.device}, but features are on {features.device}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be of a floating dtype, got {tensor.dtype}")
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")


def _fake(features: Tensor, *others: Any) -> Tensor:
    if features.dim() == 3:
        return features.new_empty(features.shape)
    instances, channels, height, width = features.shape
    return features.new_empty(instances, height * width, channels)


def _fake_backward(
    grad_output: Tensor,
    features: Tensor,
    dynamic_weights: Tensor,
    norm_in_weight: Tensor,
    norm_in_bias: Tensor,
    norm_out_weight: Tensor,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    norms = 2 * (norm_in_weight.shape[0] + norm_out_weight.shape[0])
    return (
        features.new_empty(features.shape),
        dynamic_weights.new_empty(dynamic_weights.shape),
        norm_in_weight.new_empty(features.shape[0], norms),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.eps = inputs[6]


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grad_features, grad_weights, shares = torch.ops.queryseg.dynamic_conv_backward(
        grad_output, *tensors, ctx.eps
    )
    grad_norms = shares.sum(0).split([norm.shape[0] for norm in tensors[2:]])
    return grad_features, grad_weights, *grad_norms, None


_ARGUMENTS = (
    "Tensor features, Tensor dynamic_weights, Tensor norm_in_weight, Tensor norm_in_bias, "
    "Tensor norm_out_weight, Tensor norm_out_bias, float eps"
)
define_op(f"dynamic_conv({_ARGUMENTS}) -> Tensor", fallback=dynamic_conv_reference, fake=_fake)
define_backward(
    "dynamic_conv",
    f"dynamic_conv_backward(Tensor grad_output, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
    fallback=dynamic_conv_backward_reference,
    fake=_fake_backward,
    differentiate=_differentiate,
    save=_save,
)
