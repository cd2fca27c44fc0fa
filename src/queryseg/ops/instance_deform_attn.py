"""Per-instance deformable attention over a mask map (Dong et al., "SOIT", section 3.3)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from queryseg.ops.library import define_backward, define_op
from queryseg.ops.precision import VALUE_DTYPES, compute_dtype, refuse_nondeterminism


def instance_deform_attn(
    mask_feats: Tensor,
    dynamic_weights: Tensor,
    row_codes: Tensor,
    column_codes: Tensor,
    *,
    heads: int,
    points: int,
    image_index: Tensor | None = None,
    valid_sizes: Tensor | None = None,
) -> Tensor:
    """Predict each instance's mask logits by a small deformable attention of its own.

    The query of pixel p is its feature plus the instance's position code. Two linear layers make
    of it, for M heads, K offsets in pixels and K weights (softmax over K); head m sums its share
    of C / M channels of the features sampled bilinearly at p plus the offsets. ReLU and a last
    linear layer give the logit. A sample takes zero from outside the image's valid area, and a
    sample whose offset is NaN is zero.

    Nothing of a pixel is stored for the backward pass, which computes it again. All arithmetic is
    float32 (float64): under autocast too, because rounded weights would move the samples.

    Args:
        mask_feats: (B, H, W, C), C divisible by M; float32, float64, float16 or bfloat16.
        dynamic_weights: (N, 3 * M * K * (C + 1) + C + 1), the layers of each instance one after
            the other: offset weight (M, K, 2 as x y, C) and bias (M, K, 2), attention weight
            (M, K, C) and bias (M, K), output weight (C,) and bias; float32 (float64 with float64
            features).
        row_codes: (N, H + 1, C_row), added to the first C_row channels of a row's pixels; the
            last entry serves pixels in padded columns. A constant, dtype of `dynamic_weights`.
        column_codes: (N, W + 1, C - C_row), likewise for the other channels of a column's pixels;
            the last entry serves pixels in padded rows.
        heads: M.
        points: K.
        image_index: (N,) int64, image of each instance; may be left out when B = 1.
        valid_sizes: (B, 2) int64, height and width of the part of the map that is not padding,
            which starts at the top left; the whole map when left out.

    Returns:
        (N, H, W) logits, float32 (float64).

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together, or codes that require
            gradients.
        RuntimeError: on the CPU, an index or valid size out of range (on CUDA such an instance's
            logits are NaN and valid sizes are cut to the map), or a map of 2^24 pixels or more.

    >>> weights = torch.zeros(1, 3 * (2 + 1) + 2 + 1)
    >>> weights[0, -3:] = torch.tensor([1.0, 2.0, 0.5])  # logit = x_0 + 2 x_1 + 0.5
    >>> codes = torch.zeros(1, 2, 1)
    >>> instance_deform_attn(torch.ones(1, 1, 1, 2), weights, codes, codes, heads=1, points=1)
    tensor([[[3.5000]]])
    """
    for name, codes in (("row_codes", row_codes), ("column_codes", column_codes)):
        if codes.requires_grad:
            raise ValueError(f"{name} get no gradient: pass {name}.detach()")
    _check(
        mask_feats,
        dynamic_weights,
        row_codes,
        column_codes,
        image_index,
        valid_sizes,
        heads,
        points,
    )
    return torch.ops.queryseg.instance_deform_attn(
        mask_feats,
        dynamic_weights,
        row_codes,
        column_codes,
        image_index,
        valid_sizes,
        heads,
        points,
    )


def num_dynamic_weights(channels: int, heads: int, points: int) -> int:
    """Length of an instance's vector: 441 for 8 channels, 4 heads and 4 points.

    >>> num_dynamic_weights(8, 4, 4)
    441
    """
    return 3 * heads * points * (channels + 1) + channels + 1


class _Layers(NamedTuple):
    """The layers of one instance; rows of the first four are numbered (head, point[, xy])."""

    offset_weight: Tensor  # (2MK, C)
    offset_bias: Tensor
    attn_weight: Tensor  # (MK, C)
    attn_bias: Tensor
    out_weight: Tensor  # (C,)
    out_bias: Tensor


class _Attended(NamedTuple):
    """One instance's way from its queries to its logits; P pixels, D channels per head."""

    queries: Tensor  # (P, C)
    attn: Tensor  # (P, M, K)
    maps: Tensor  # (M, D, H, W)
    grid: Tensor  # (M, P, K, 2)
    sampled: Tensor  # (M, D, P, K)
    hidden: Tensor  # (P, C), before the ReLU


def instance_deform_attn_reference(
    mask_feats: Tensor,
    dynamic_weights: Tensor,
    row_codes: Tensor,
    column_codes: Tensor,
    image_index: Tensor | None,
    valid_sizes: Tensor | None,
    heads: int,
    points: int,
) -> Tensor:
    """`instance_deform_attn` in pure torch: `grid_sample`, one instance after the other.

    Args and returns as there.
    """
    _check(
        mask_feats,
        dynamic_weights,
        row_codes,
        column_codes,
        image_index,
        valid_sizes,
        heads,
        points,
    )
    _, height, width, channels = mask_feats.shape
    feats = mask_feats.to(dynamic_weights.dtype)
    logits = dynamic_weights.new_empty(dynamic_weights.shape[0], height, width)
    valid = _valid_areas(valid_sizes, feats)
    for n, image in enumerate(_images(mask_feats, dynamic_weights, image_index)):
        layers = _layers(dynamic_weights[n], channels, heads * points)
        inside, codes = _padding_and_codes(row_codes[n], column_codes[n], valid[image])
        attended = _attend(feats[image], codes, inside, layers, heads, points)
        logits[n] = (attended.hidden.relu() @ layers.out_weight + layers.out_bias).view(
            height, width
        )
    return logits


def instance_deform_attn_backward_reference(
    grad_output: Tensor,
    mask_feats: Tensor,
    dynamic_weights: Tensor,
    row_codes: Tensor,
    column_codes: Tensor,
    image_index: Tensor | None,
    valid_sizes: Tensor | None,
    heads: int,
    points: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of `instance_deform_attn_reference` by the features and the dynamic weights.

    Written out, because autograd is out of reach where a dispatcher runs a fallback.
    """
    _check(
        mask_feats,
        dynamic_weights,
        row_codes,
        column_codes,
        image_index,
        valid_sizes,
        heads,
        points,
    )
    channels = mask_feats.shape[3]
    if grad_output.shape != (dynamic_weights.shape[0], *mask_feats.shape[1:3]):
        raise RuntimeError(f"grad_output has shape {tuple(grad_output.shape)}, unlike the output")
    feats = mask_feats.to(dynamic_weights.dtype)
    grad_feats = torch.zeros_like(feats)
    grad_weights = torch.zeros_like(dynamic_weights)
    valid = _valid_areas(valid_sizes, feats)
    for n, image in enumerate(_images(mask_feats, dynamic_weights, image_index)):
        layers = _layers(dynamic_weights[n], channels, heads * points)
        inside, codes = _padding_and_codes(row_codes[n], column_codes[n], valid[image])
        attended = _attend(feats[image], codes, inside, layers, heads, points)
        grad_queries, grad_values, grad_layers = _differentiate_one(
            grad_output[n].flatten(), attended, layers
        )
        grad_feats[image] += grad_queries.view_as(feats[image])
        grad_feats[image] += grad_values * inside
        grad_weights[n] = torch.cat([grad.flatten() for grad in grad_layers])
    return grad_feats.to(mask_feats.dtype), grad_weights


def _check(
    mask_feats: Tensor,
    dynamic_weights: Tensor,
    row_codes: Tensor,
    column_codes: Tensor,
    image_index: Tensor | None,
    valid_sizes: Tensor | None,
    heads: int,
    points: int,
) -> None:
    """Check the arguments of a call against each other."""
    check_sizes(mask_feats, dynamic_weights, heads, points)
    check_codes(mask_feats, dynamic_weights, row_codes, column_codes)
    check_images(mask_feats, dynamic_weights, image_index, valid_sizes)


def check_sizes(mask_feats: Tensor, dynamic_weights: Tensor, heads: int, points: int) -> None:
    """Check features and weights against each other.

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    if mask_feats.dim() != 4:
        raise ValueError(f"mask_feats must have shape (B, H, W, C), got {tuple(mask_feats.shape)}")
    if mask_feats.dtype not in VALUE_DTYPES:
        raise ValueError(
            f"mask_feats must be float32, float64, float16 or bfloat16, got {mask_feats.dtype}"
        )
    channels = mask_feats.shape[3]
    if heads < 1 or points < 1:
        raise ValueError(f"heads and points must be positive, got {heads} and {points}")
    if channels < 1 or channels % heads != 0:
        raise ValueError(f"{heads} heads cannot share the C = {channels} channels of mask_feats")
    count = num_dynamic_weights(channels, heads, points)
    if dynamic_weights.dim() != 2 or dynamic_weights.shape[1] != count:
        raise ValueError(
            f"dynamic_weights must have shape (N, {count}) for {channels} channels, {heads} heads "
            f"and {points} points, got {tuple(dynamic_weights.shape)}"
        )
    _check_like_weights("dynamic_weights", dynamic_weights, mask_feats)


def check_codes(
    mask_feats: Tensor, dynamic_weights: Tensor, row_codes: Tensor, column_codes: Tensor
) -> None:
    """Check the position codes.

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    _, height, width, channels = mask_feats.shape
    instances = dynamic_weights.shape[0]
    if row_codes.dim() != 3 or row_codes.shape[2] > channels:
        raise ValueError(
            f"row_codes must have shape ({instances}, {height + 1}, at most {channels}), "
            f"got {tuple(row_codes.shape)}"
        )
    rest = channels - row_codes.shape[2]
    expected = {
        "row_codes": (row_codes, (instances, height + 1, row_codes.shape[2])),
        "column_codes": (column_codes, (instances, width + 1, rest)),
    }
    for name, (codes, shape) in expected.items():
        if codes.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(codes.shape)}")
        _check_like_weights(name, codes, mask_feats)


def check_images(
    mask_feats: Tensor,
    dynamic_weights: Tensor,
    image_index: Tensor | None,
    valid_sizes: Tensor | None,
) -> None:
    """Check what says which image and which part of its map an instance sees.

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    batch, instances = mask_feats.shape[0], dynamic_weights.shape[0]
    if image_index is None and batch != 1:
        raise ValueError(f"image_index is needed with {batch} images")
    expected = {
        "image_index": (image_index, (instances,)),
        "valid_sizes": (valid_sizes, (batch, 2)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tensor.shape != shape or tensor.dtype != torch.int64:
            raise ValueError(
                f"{name} must be int64 of shape {shape}, got {tensor.dtype} of shape "
                f"{tuple(tensor.shape)}"
            )
        if tensor.device != mask_feats.device:
            raise ValueError(
                f"{name} is on {tensor.device}, but mask_feats are on {mask_feats.device}"
            )


def _check_like_weights(name: str, tensor: Tensor, mask_feats: Tensor) -> None:
    """Check dtype and device of a floating input that is never of half precision."""
    if tensor.device != mask_feats.device:
        raise ValueError(f"{name} is on {tensor.device}, but mask_feats are on {mask_feats.device}")
    if tensor.dtype != compute_dtype(mask_feats):
        raise ValueError(
            f"{name} must be {compute_dtype(mask_feats)} with mask_feats of {mask_feats.dtype}, "
            f"got {tensor.dtype}: in lower precision the sampling points would move"
        )


def _images(mask_feats: Tensor, dynamic_weights: Tensor, image_index: Tensor | None) -> list[int]:
    """The image of every instance.

    Raises:
        RuntimeError: there is no such image.
    """
    if image_index is None:
        return [0] * dynamic_weights.shape[0]
    images = image_index.tolist()
    for n, image in enumerate(images):
        if not 0 <= image < mask_feats.shape[0]:
            raise RuntimeError(
                f"image_index[{n}] is {image}, but mask_feats hold {mask_feats.shape[0]} images"
            )
    return images


def _valid_areas(valid_sizes: Tensor | None, feats: Tensor) -> list[tuple[int, int]]:
    """Height and width of every image's valid area.

    Raises:
        RuntimeError: one does not lie on the map.
    """
    batch, height, width, _ = feats.shape
    if valid_sizes is None:
        return [(height, width)] * batch
    areas = []
    for image, (tall, wide) in enumerate(valid_sizes.tolist()):
        if not (0 <= tall <= height and 0 <= wide <= width):
            raise RuntimeError(
                f"valid_sizes[{image}] is {tall} x {wide}, but the map is {height} x {width}"
            )
        areas.append((tall, wide))
    return areas


def _padding_and_codes(
    row_codes: Tensor, column_codes: Tensor, valid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Where an instance's map is valid, (H, W, 1) bool, and its position codes, (H, W, C)."""
    height, width = row_codes.shape[0] - 1, column_codes.shape[0] - 1
    in_rows = (torch.arange(height, device=row_codes.device) < valid[0]).view(-1, 1, 1)
    in_columns = (torch.arange(width, device=row_codes.device) < valid[1]).view(1, -1, 1)
    by_row = torch.where(in_columns, row_codes[:-1].unsqueeze(1), row_codes[-1])
    by_column = torch.where(in_rows, column_codes[:-1].unsqueeze(0), column_codes[-1])
    return in_rows & in_columns, torch.cat([by_row, by_column], dim=2)


def _layers(weights: Tensor, channels: int, rows: int) -> _Layers:
    """Cuts an instance's vector into its layers."""
    sizes = [2 * rows * channels, 2 * rows, rows * channels, rows, channels, 1]
    parts = weights.split(sizes)
    return _Layers(
        parts[0].view(2 * rows, channels), parts[1], parts[2].view(rows, channels), *parts[3:]
    )


def _attend(
    feats: Tensor, codes: Tensor, inside: Tensor, layers: _Layers, heads: int, points: int
) -> _Attended:
    """Everything up to the ReLU for one instance on one map (H, W, C)."""
    height, width, channels = feats.shape
    queries = (feats + codes).view(-1, channels)
    offsets = F.linear(queries, layers.offset_weight, layers.offset_bias)
    attn = F.linear(queries, layers.attn_weight, layers.attn_bias)
    attn = attn.view(-1, heads, points).softmax(-1)
    row = torch.arange(height, device=feats.device, dtype=feats.dtype)
    column = torch.arange(width, device=feats.device, dtype=feats.dtype)
    pixel = torch.stack([column.expand(height, -1), row.unsqueeze(1).expand(-1, width)], dim=-1)
    size = feats.new_tensor([width, height])
    at = pixel.view(-1, 1, 1, 2) + offsets.view(-1, heads, points, 2)
    # What lies far off, or nowhere, moves to just outside, where all corners are zero.
    at = torch.minimum(at.nan_to_num(nan=-2.0).clamp(min=-2), size)
    grid = ((2 * at + 1) / size - 1).transpose(0, 1)
    maps = (feats * inside).view(height, width, heads, -1).permute(2, 3, 0, 1).contiguous()
    sampled = F.grid_sample(maps, grid, align_corners=False)
    hidden = torch.einsum("mdpk,pmk->pmd", sampled, attn).flatten(1)
    return _Attended(queries, attn, maps, grid, sampled, hidden)


def _differentiate_one(
    grad: Tensor, attended: _Attended, layers: _Layers
) -> tuple[Tensor, Tensor, _Layers]:
    """Gradients by one instance's queries (P, C), sampled features (H, W, C) and layers."""
    queries, attn, maps, grid, sampled, hidden = attended
    heads, _, height, width = maps.shape
    grad_hidden = grad.unsqueeze(1) * layers.out_weight * (hidden > 0)
    grad_hidden = grad_hidden.view(-1, heads, maps.shape[1])
    grad_sampled = torch.einsum("pmd,pmk->mdpk", grad_hidden, attn)
    grad_maps, grad_grid = torch.ops.aten.grid_sampler_2d_backward(
        grad_sampled, maps, grid, 0, 0, False, [True, True]
    )
    size = grad.new_tensor([width, height])
    grad_offsets = (grad_grid * (2 / size)).transpose(0, 1).flatten(1)
    grad_attn = torch.einsum("mdpk,pmd->pmk", sampled, grad_hidden)
    grad_logits = attn * (grad_attn - (attn * grad_attn).sum(-1, keepdim=True))
    grad_logits = grad_logits.flatten(1)
    grad_queries = grad_offsets @ layers.offset_weight + grad_logits @ layers.attn_weight
    grad_layers = _Layers(
        grad_offsets.T @ queries,
        grad_offsets.sum(0),
        grad_logits.T @ queries,
        grad_logits.sum(0),
        grad @ hidden.relu(),
        grad.sum(),
    )
    return grad_queries, grad_maps.permute(2, 3, 0, 1).flatten(2), grad_layers


def _fake(mask_feats: Tensor, dynamic_weights: Tensor, *others: Any) -> Tensor:
    _, height, width, _ = mask_feats.shape
    return dynamic_weights.new_empty(dynamic_weights.shape[0], height, width)


def _fake_backward(
    grad_output: Tensor, mask_feats: Tensor, dynamic_weights: Tensor, *others: Any
) -> tuple[Tensor, Tensor]:
    return (
        mask_feats.new_empty(mask_feats.shape),
        dynamic_weights.new_empty(dynamic_weights.shape),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.sizes = inputs[6:]


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    refuse_nondeterminism("instance_deform_attn", grad_output.device)
    grads = torch.ops.queryseg.instance_deform_attn_backward(
        grad_output, *ctx.saved_tensors, *ctx.sizes
    )
    return *grads, None, None, None, None, None, None


_ARGUMENTS = (
    "Tensor mask_feats, Tensor dynamic_weights, Tensor row_codes, Tensor column_codes, "
    "Tensor? image_index, Tensor? valid_sizes, int heads, int points"
)
define_op(
    f"instance_deform_attn({_ARGUMENTS}) -> Tensor",
    fallback=instance_deform_attn_reference,
    fake=_fake,
)
define_backward(
    "instance_deform_attn",
    f"instance_deform_attn_backward(Tensor grad_output, {_ARGUMENTS}) -> (Tensor, Tensor)",
    fallback=instance_deform_attn_backward_reference,
    fake=_fake_backward,
    differentiate=_differentiate,
    save=_save,
)
