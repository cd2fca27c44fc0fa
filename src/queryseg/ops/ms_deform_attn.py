"""Multi-scale deformable attention (Zhu et al., "Deformable DETR", section 4.1, eq. 3)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from queryseg.ops.library import define_backward, define_op
from queryseg.ops.precision import (
    VALUE_DTYPES,
    autocast_value,
    compute_dtype,
    refuse_nondeterminism,
)

SpatialShapes = Sequence[tuple[int, int]] | Tensor


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: SpatialShapes,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sum values sampled bilinearly around each query, over levels and points, by head.

    A location (x, y) lies in [0, 1] of a level, pixel (row, column) centred at
    ((column + 0.5) / W, (row + 0.5) / H). What a sample takes from outside the level is zero; so is
    a sample whose location is NaN or infinite.

    Under autocast the value is cast to the autocast dtype. Locations and weights stay float32
    everywhere: in half precision they would move the sampling points.

    Args:
        value: (B, S, M, D), the levels one after the other, each row by row; float32, float64,
            float16 or bfloat16.
        spatial_shapes: (H, W) of each of the L levels, sum of H * W = S. Ints cost nothing; an
            int64 tensor (L, 2) is read back from its device on every call.
        sampling_locations: (B, Q, M, L, P, 2), float32 (float64 with a float64 value).
        attention_weights: (B, Q, M, L, P), any floating dtype; computed with in float32 (float64).

    Returns:
        (B, Q, M * D), dtype of the value.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together.

    >>> value = torch.ones(1, 4, 1, 2)
    >>> centre = torch.full((1, 1, 1, 1, 1, 2), 0.5)
    >>> ms_deform_attn(value, [(2, 2)], centre, torch.ones(1, 1, 1, 1, 1))
    tensor([[[1., 1.]]])
    """
    sizes = flat_shapes(spatial_shapes)
    check_value(value, sizes)
    if sampling_locations.dim() != 6 or sampling_locations.shape[4] < 1:
        raise ValueError(
            "sampling_locations must have shape (B, Q, M, L, P, 2) with P >= 1, "
            f"got {tuple(sampling_locations.shape)}"
        )
    _, queries, _, _, points, _ = sampling_locations.shape
    shape = (value.shape[0], queries, value.shape[2], len(sizes) // 2, points)
    check_points("sampling_locations", sampling_locations, (*shape, 2), value)
    check_points("attention_weights", attention_weights, shape, value, any_float=True)
    value = autocast_value(value)
    weights = attention_weights.to(compute_dtype(value))
    return torch.ops.queryseg.ms_deform_attn(value, sizes, sampling_locations, weights)


def ms_deform_attn_reference(
    value: Tensor, sizes: list[int], locations: Tensor, weights: Tensor
) -> Tensor:
    """`ms_deform_attn` in pure torch: one `grid_sample` per level, accumulated level by level.

    Args:
        value: (B, S, M, D).
        sizes: height and width of every level in one list.
        locations: (B, Q, M, L, P, 2).
        weights: (B, Q, M, L, P).

    Returns:
        (B, Q, M * D), dtype of the value.
    """
    batch, queries, heads = locations.shape[:3]
    channels = value.shape[3]
    total = locations.new_zeros(batch * heads, channels, queries)
    for level, feature_map in enumerate(_level_maps(value, sizes)):
        sampled = F.grid_sample(
            feature_map.to(locations.dtype), _grid(locations[:, :, :, level]), align_corners=False
        )
        total += torch.einsum("ncqp,nqp->ncq", sampled, _by_head(weights[:, :, :, level]))
    output = total.view(batch, heads * channels, queries).transpose(1, 2)
    return output.to(value.dtype, memory_format=torch.contiguous_format)


def ms_deform_attn_backward_reference(
    grad_output: Tensor, value: Tensor, sizes: list[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `ms_deform_attn_reference` by value, locations and weights.

    Written out, because autograd is out of reach where a dispatcher runs a fallback.
    """
    batch, queries, heads, levels, points, _ = locations.shape
    tokens, channels = value.shape[1], value.shape[3]
    dtype = locations.dtype
    grad = grad_output.to(dtype).view(batch, queries, heads, channels)
    grad = grad.permute(0, 2, 3, 1).reshape(batch * heads, channels, queries)
    grad_maps, grad_grids, grad_weights = [], [], []
    for level, feature_map in enumerate(_level_maps(value, sizes)):
        feature_map, grid = feature_map.to(dtype), _grid(locations[:, :, :, level])
        weight = _by_head(weights[:, :, :, level])
        sampled = F.grid_sample(feature_map, grid, align_corners=False)
        grad_weights.append(torch.einsum("ncqp,ncq->nqp", sampled, grad))
        grad_sampled = grad.unsqueeze(-1) * weight.unsqueeze(1)
        grad_map, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
            grad_sampled, feature_map, grid, 0, 0, False, [True, True]
        )
        grad_maps.append(grad_map.flatten(2))
        grad_grids.append(2 * grad_grid)
    grad_value = torch.cat(grad_maps, 2).view(batch, heads, channels, tokens).permute(0, 3, 1, 2)
    grad_locations = torch.stack(grad_grids, 2).view(batch, heads, queries, levels, points, 2)
    grad_weight = torch.stack(grad_weights, 2).view(batch, heads, queries, levels, points)
    return (
        grad_value.to(value.dtype, memory_format=torch.contiguous_format),
        grad_locations.transpose(1, 2).contiguous(),
        grad_weight.transpose(1, 2).contiguous(),
    )


def flat_shapes(spatial_shapes: SpatialShapes) -> list[int]:
    """Height and width of every level in one list of ints.

    Raises:
        ValueError: not (L, 2), no level, or a size below 1.
    """
    rows = spatial_shapes.tolist() if isinstance(spatial_shapes, Tensor) else spatial_shapes
    wrong = f"spatial_shapes must hold one (height, width) of ints per level, got {spatial_shapes}"
    sizes: list[int] = []
    for row in rows:
        if not isinstance(row, Sequence) or len(row) != 2:
            raise ValueError(wrong)
        sizes.extend(row)
    if not sizes or not all(isinstance(size, int | torch.SymInt) for size in sizes):
        raise ValueError(wrong)
    if any(size < 1 for size in sizes):
        raise ValueError(f"spatial_shapes must be positive, got {spatial_shapes}")
    return sizes


def check_value(value: Tensor, sizes: list[int]) -> None:
    """Check that a value is (B, S, M, D) and made of these levels.

    Raises:
        ValueError: wrong rank, dtype or token count.
    """
    if value.dim() != 4:
        raise ValueError(f"value must have shape (B, S, M, D), got {tuple(value.shape)}")
    if value.dtype not in VALUE_DTYPES:
        raise ValueError(f"value must be float32, float64, float16 or bfloat16, got {value.dtype}")
    tokens = sum(height * width for height, width in zip(sizes[::2], sizes[1::2]))
    if tokens != value.shape[1]:
        raise ValueError(
            f"spatial_shapes cover {tokens} tokens, but value has S = {value.shape[1]}"
        )


def check_points(
    name: str, tensor: Tensor, shape: tuple[int, ...], value: Tensor, any_float: bool = False
) -> None:
    """Check shape, device and dtype of an input that describes sampling points.

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    if tensor.device != value.device:
        raise ValueError(f"{name} is on {tensor.device}, but value is on {value.device}")
    if any_float and tensor.is_floating_point():
        return
    if tensor.dtype != compute_dtype(value):
        raise ValueError(
            f"{name} must be {compute_dtype(value)} with a value of {value.dtype}, got "
            f"{tensor.dtype}: in lower precision the sampling points would move"
        )


def _level_maps(value: Tensor, sizes: list[int]) -> list[Tensor]:
    """The levels of a value as maps (B * M, D, H, W)."""
    batch, _, heads, channels = value.shape
    shapes = list(zip(sizes[::2], sizes[1::2]))
    levels = value.split([height * width for height, width in shapes], dim=1)
    return [
        level.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        for level, (height, width) in zip(levels, shapes)
    ]


def _by_head(points: Tensor) -> Tensor:
    """(B, Q, M, P, ...) to (B * M, Q, P, ...)."""
    return points.transpose(1, 2).flatten(0, 1)


def _grid(locations: Tensor) -> Tensor:
    """Locations of one level as a `grid_sample` grid; what lies far off moves to just outside."""
    return 2 * _by_head(locations.nan_to_num(nan=-1.0).clamp(-1, 2)) - 1


def _fake(value: Tensor, sizes: list[int], locations: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, channels = value.shape
    return value.new_empty(batch, locations.shape[1], heads * channels)


def _fake_backward(
    grad_output: Tensor, value: Tensor, sizes: list[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        locations.new_empty(locations.shape),
        weights.new_empty(weights.shape),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.sizes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    value, locations, weights = ctx.saved_tensors
    refuse_nondeterminism("ms_deform_attn", value.device)
    grads = torch.ops.queryseg.ms_deform_attn_backward(
        grad_output, value, ctx.sizes, locations, weights
    )
    return grads[0], None, grads[1], grads[2]


define_op(
    "ms_deform_attn(Tensor value, SymInt[] spatial_shapes, Tensor sampling_locations, "
    "Tensor attention_weights) -> Tensor",
    fallback=ms_deform_attn_reference,
    fake=_fake,
)
define_backward(
    "ms_deform_attn",
    "ms_deform_attn_backward(Tensor grad_output, Tensor value, SymInt[] spatial_shapes, "
    "Tensor sampling_locations, Tensor attention_weights) -> (Tensor, Tensor, Tensor)",
    fallback=ms_deform_attn_backward_reference,
    fake=_fake_backward,
    differentiate=_differentiate,
    save=_save,
)
