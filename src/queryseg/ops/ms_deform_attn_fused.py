"""Multi-scale deformable attention straight from what a module's linear layers put out."""

from typing import Any

import torch
from torch import Tensor

from queryseg.ops.library import define_backward, define_op
from queryseg.ops.ms_deform_attn import (
    SpatialShapes,
    check_value,
    flat_shapes,
    ms_deform_attn_backward_reference,
    ms_deform_attn_reference,
)
from queryseg.ops.precision import autocast_value, compute_dtype, refuse_nondeterminism


def ms_deform_attn_fused(
    value: Tensor,
    spatial_shapes: SpatialShapes,
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
) -> Tensor:
    """`ms_deform_attn` with the softmax and the location arithmetic inside.

    Weights are the softmax of the logits over all levels and points of a head. A location is the
    reference point plus the offset, which counts cells of the level around a point (x, y), and
    P-ths of half the box around the centre of a box (cx, cy, w, h) (Zhu et al., "Deformable DETR",
    sections 4.1 and A.4). Neither is ever stored, nor kept for the backward pass.

    Under autocast the value is cast to the autocast dtype. Offsets and logits are read in the dtype
    they have, and everything is computed in float32 (float64 with a float64 value): in half
    precision, reference plus offset would move the sampling points.

    Args:
        value: (B, S, M, D), the levels one after the other, each row by row; float32, float64,
            float16 or bfloat16.
        spatial_shapes: (H, W) of each of the L levels, as for `ms_deform_attn`.
        reference_points: (B or 1, Q, L or 1, 2 or 4) in [0, 1] of the padded image; any float
            dtype and layout, an expanded one costs nothing.
        sampling_offsets: (B, Q, M, L, P, 2), any float dtype. A view of rows is read in place.
        attention_logits: (B, Q, M, L, P), likewise.

    Returns:
        (B, Q, M * D), dtype of the value.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together.

    >>> value = torch.ones(1, 4, 1, 2)
    >>> centre = torch.full((1, 1, 1, 2), 0.5)
    >>> offsets, logits = torch.zeros(1, 1, 1, 1, 3, 2), torch.zeros(1, 1, 1, 1, 3)
    >>> ms_deform_attn_fused(value, [(2, 2)], centre, offsets, logits)
    tensor([[[1., 1.]]])
    """
    sizes = flat_shapes(spatial_shapes)
    check_value(value, sizes)
    if sampling_offsets.dim() != 6 or sampling_offsets.shape[4] < 1:
        raise ValueError(
            "sampling_offsets must have shape (B, Q, M, L, P, 2) with P >= 1, "
            f"got {tuple(sampling_offsets.shape)}"
        )
    _, queries, _, _, points, _ = sampling_offsets.shape
    shape = (value.shape[0], queries, value.shape[2], len(sizes) // 2, points)
    _check("sampling_offsets", sampling_offsets, (*shape, 2), value)
    _check("attention_logits", attention_logits, shape, value)
    reference_points = _expanded(reference_points, shape, value)
    value = autocast_value(value)
    return torch.ops.queryseg.ms_deform_attn_fused(
        value,
        sizes,
        reference_points.to(compute_dtype(value)),
        _readable(sampling_offsets, value),
        _readable(attention_logits, value),
    )


def sampling_locations(
    reference_points: Tensor, sampling_offsets: Tensor, sizes: list[int]
) -> Tensor:
    """Where the points lie.

    Args:
        reference_points: (B, Q, L, 2 or 4).
        sampling_offsets: (B, Q, M, L, P, 2), of the same dtype.
        sizes: height and width of every level in one list.

    Returns:
        (B, Q, M, L, P, 2), normalised.
    """
    points = sampling_offsets.shape[4]
    return reference_points[:, :, None, :, None, :2] + sampling_offsets * _offset_scales(
        reference_points, sizes, points
    )


def ms_deform_attn_fused_reference(
    value: Tensor, sizes: list[int], reference: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """`ms_deform_attn_fused` in pure torch.

    Args:
        value: (B, S, M, D).
        sizes: height and width of every level in one list.
        reference: (B, Q, L, 2 or 4), in the dtype to compute in.
        offsets: (B, Q, M, L, P, 2).
        logits: (B, Q, M, L, P).

    Returns:
        (B, Q, M * D), dtype of the value.
    """
    locations = sampling_locations(reference, offsets.to(reference.dtype), sizes)
    return ms_deform_attn_reference(value, sizes, locations, _softmax(logits.to(reference.dtype)))


def ms_deform_attn_fused_backward_reference(
    grad_output: Tensor,
    value: Tensor,
    sizes: list[int],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `ms_deform_attn_fused_reference` by its four tensors.

    Without `reference_grad`, that of the reference points has no elements.
    """
    wide = offsets.to(reference.dtype)
    weights = _softmax(logits.to(reference.dtype))
    locations = sampling_locations(reference, wide, sizes)
    grad_value, grad_locations, grad_weights = ms_deform_attn_backward_reference(
        grad_output, value, sizes, locations, weights
    )
    grad_offsets = grad_locations * _offset_scales(reference, sizes, offsets.shape[4])
    mean = (weights * grad_weights).sum((-2, -1), keepdim=True)
    grad_logits = weights * (grad_weights - mean)
    grads = [grad_locations.sum((2, 4))]
    if reference.shape[-1] == 4:
        # A point off the map has no gradient, though its offset be NaN or infinite.
        by_box = (grad_locations * wide).masked_fill(grad_locations == 0, 0)
        grads.append(by_box.sum((2, 4)) * (0.5 / offsets.shape[4]))
    grad_reference = torch.cat(grads, dim=-1)
    return (
        grad_value,
        grad_reference if reference_grad else grad_reference[:0].clone(),
        grad_offsets.to(offsets.dtype),
        grad_logits.to(logits.dtype),
    )


def _offset_scales(reference: Tensor, sizes: list[int], points: int) -> Tensor:
    """What an offset of one is in normalised coordinates, (..., L, 1, 2)."""
    if reference.shape[-1] == 4:
        return reference[:, :, None, :, None, 2:] * (0.5 / points)
    cells = [(width, height) for height, width in zip(sizes[::2], sizes[1::2])]
    return 1 / reference.new_tensor(cells)[:, None]


def _softmax(logits: Tensor) -> Tensor:
    return logits.flatten(-2).softmax(-1).view(logits.shape)


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], value: Tensor) -> None:
    """Check an input that any float dtype will do for.

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    if tensor.device != value.device:
        raise ValueError(f"{name} is on {tensor.device}, but value is on {value.device}")
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be of a floating dtype, got {tensor.dtype}")


def _expanded(reference_points: Tensor, shape: tuple[int, ...], value: Tensor) -> Tensor:
    """Reference points of every image and level, as a view.

    Raises:
        ValueError: they do not fit a call of (B, Q, M, L, P) points.
    """
    batch, queries, _, levels, _ = shape
    given = tuple(reference_points.shape)
    if (
        len(given) != 4
        or given[0] not in (1, batch)
        or given[1] != queries
        or given[2] not in (1, levels)
        or given[3] not in (2, 4)
    ):
        raise ValueError(
            f"reference_points must have shape ({batch} or 1, {queries}, {levels} or 1, 2 or 4), "
            f"got {given}"
        )
    _check("reference_points", reference_points, given, value)
    return reference_points.expand(batch, queries, levels, given[3])


def _readable(tensor: Tensor, value: Tensor) -> Tensor:
    """In a dtype that the kernels read beside this value: float64 with float64, else narrower."""
    wide = compute_dtype(value)
    narrow = (torch.float32, torch.float16, torch.bfloat16)
    return tensor if wide == torch.float32 and tensor.dtype in narrow else tensor.to(wide)


def _fake(
    value: Tensor, sizes: list[int], reference: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    batch, _, heads, channels = value.shape
    return value.new_empty(batch, offsets.shape[1], heads * channels)


def _fake_backward(
    grad_output: Tensor,
    value: Tensor,
    sizes: list[int],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images, *rest = reference.shape
    return (
        value.new_empty(value.shape),
        reference.new_empty(images if reference_grad else 0, *rest),
        offsets.new_empty(offsets.shape),
        logits.new_empty(logits.shape),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.sizes, reference, offsets, logits = inputs
    ctx.save_for_backward(value, reference, offsets, logits)


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    value, reference, offsets, logits = ctx.saved_tensors
    refuse_nondeterminism("ms_deform_attn_fused", value.device)
    reference_grad = ctx.needs_input_grad[2]
    grads = torch.ops.queryseg.ms_deform_attn_fused_backward(
        grad_output, value, ctx.sizes, reference, offsets, logits, reference_grad
    )
    return grads[0], None, grads[1] if reference_grad else None, grads[2], grads[3]


define_op(
    "ms_deform_attn_fused(Tensor value, SymInt[] spatial_shapes, Tensor reference_points, "
    "Tensor sampling_offsets, Tensor attention_logits) -> Tensor",
    fallback=ms_deform_attn_fused_reference,
    fake=_fake,
)
define_backward(
    "ms_deform_attn_fused",
    "ms_deform_attn_fused_backward(Tensor grad_output, Tensor value, SymInt[] spatial_shapes, "
    "Tensor reference_points, Tensor sampling_offsets, Tensor attention_logits, "
    "bool reference_grad) -> (Tensor, Tensor, Tensor, Tensor)",
    fallback=ms_deform_attn_fused_backward_reference,
    fake=_fake_backward,
    differentiate=_differentiate,
    save=_save,
)
