"""Sparse RoIAlign at quadtree nodes (Ke et al., "Mask Transfiner", section 3.3)."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from queryseg.ops.host_numbers import numbers_on
from queryseg.ops.library import define_backward, define_op
from queryseg.ops.precision import (
    VALUE_DTYPES,
    autocast_value,
    compute_dtype,
    refuse_nondeterminism,
)

MOST_SAMPLES = 1024  # per cell and axis: larger boxes lie far outside any image


def gather_nodes(
    features: Sequence[Tensor],
    scales: Sequence[float],
    boxes_xyxy_abs: Tensor,
    image_index: Tensor,
    feature_level: Tensor,
    grid_sizes: Sequence[int],
    node_index: Tensor,
    node_level: Tensor,
    *,
    sampling_ratio: int = 0,
) -> Tensor:
    """Pool feature vectors at chosen cells of the grids that several levels lay over each box.

    Equal to RoIAlign (aligned, as Detectron2's ROIAlignV2) of every box at every grid size, then
    indexed at the nodes, without the dense maps. Boxes get no gradient, as in RoIAlign.

    Under autocast the features are cast to the autocast dtype; boxes stay float32, in half
    precision they would move. Maps in channels-last memory format are read as they are, others
    are copied to it. A node or box that refers to an instance, level, image or map that does not
    exist raises on the CPU and gives zeros on CUDA.

    Args:
        features: maps (B, C, H, W) of one pyramid (or several); float32, float64, float16 or
            bfloat16.
        scales: of each map: its pixels per pixel of the image.
        boxes_xyxy_abs: (N, 4), float32 (float64 with float64 features).
        image_index: (N,) int64, the image of each box.
        feature_level: (N, G) int64, the number of the map that each grid of a box is pooled from.
        grid_sizes: rows (= columns) of the grids of the G levels.
        node_index: (T, 3) int64 as (instance, y, x).
        node_level: (T,) int64, the number of the node's grid.
        sampling_ratio: samples per cell and axis; 0: as many as the cell has pixels, rounded up.

    Returns:
        (T, C), dtype of the features.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together.

    >>> feature = torch.arange(16.0).view(1, 1, 4, 4)
    >>> box, zero = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.zeros(1, dtype=torch.long)
    >>> node = torch.tensor([[0, 1, 1]])  # the lower right quarter
    >>> gather_nodes([feature], [1.0], box, zero, zero.view(1, 1), [2], node, zero)
    tensor([[12.5000]])
    """
    _check_features(features, scales)
    _check_nodes(features, boxes_xyxy_abs, image_index, feature_level, grid_sizes)
    _check_int64("node_index", node_index, (node_level.shape[0] if node_level.dim() else -1, 3))
    _check_int64("node_level", node_level, (node_index.shape[0],))
    for name, tensor in (
        ("boxes_xyxy_abs", boxes_xyxy_abs),
        ("image_index", image_index),
        ("feature_level", feature_level),
        ("node_index", node_index),
        ("node_level", node_level),
    ):
        if tensor.device != features[0].device:
            raise ValueError(f"{name} is on {tensor.device}, features are on {features[0].device}")
    if sampling_ratio < 0 or sampling_ratio > MOST_SAMPLES:
        raise ValueError(f"sampling_ratio must lie in [0, {MOST_SAMPLES}], got {sampling_ratio}")
    windows, samples = cell_windows(
        boxes_xyxy_abs.detach(), scales, feature_level, grid_sizes, sampling_ratio
    )
    images = image_index.view(-1, 1).expand_as(feature_level)
    bins = torch.cat([torch.stack([images, feature_level], -1), samples], -1)
    channel_last = [_channel_last(autocast_value(feature)) for feature in features]
    return torch.ops.queryseg.quadtree_gather(channel_last, windows, bins, node_index, node_level)


def cell_windows(
    boxes_xyxy_abs: Tensor,
    scales: Sequence[float],
    feature_level: Tensor,
    grid_sizes: Sequence[int],
    sampling_ratio: int,
) -> tuple[Tensor, Tensor]:
    """Where the grids lie on their maps.

    Args:
        boxes_xyxy_abs: (N, 4).
        scales, feature_level, grid_sizes, sampling_ratio: as in `gather_nodes`.

    Returns:
        (N, G, 4) top, left, height and width of the first cell in pixels, the centre of pixel 0
        at 0; (N, G, 2) int64 sample rows and columns of a cell.
    """
    known = feature_level.clamp(0, len(scales) - 1)
    device, dtype = boxes_xyxy_abs.device, boxes_xyxy_abs.dtype
    scale = numbers_on(device, scales, dtype)[known].unsqueeze(-1)
    corners = boxes_xyxy_abs.unsqueeze(1) * scale - 0.5
    grids = numbers_on(device, grid_sizes, dtype).view(-1, 1)
    cells = ((corners[..., 2:] - corners[..., :2]) / grids).flip(-1)
    windows = torch.cat([corners[..., :2].flip(-1), cells], -1)
    if sampling_ratio > 0:
        return windows, torch.full_like(cells, sampling_ratio, dtype=torch.long)
    return windows, cells.ceil().nan_to_num(nan=0.0).clamp(0, MOST_SAMPLES).long()


def quadtree_gather_reference(
    features: Sequence[Tensor],
    windows: Tensor,
    bins: Tensor,
    node_index: Tensor,
    node_level: Tensor,
) -> Tensor:
    """The operator behind `gather_nodes` in pure torch, sample by sample.

    Args:
        features: maps (B, H, W, C).
        windows: (N, G, 4) top, left, height and width of the first cell.
        bins: (N, G, 4) int64 image, map, sample rows and sample columns.
        node_index: (T, 3) int64.
        node_level: (T,) int64.

    Returns:
        (T, C), dtype of the features.
    """
    first = features[0]
    sizes = [size for feature in features for size in feature.shape[1:3]]
    total = windows.new_zeros(node_level.shape[0], first.shape[3])
    pixels = [feature.flatten(0, 2) for feature in features]
    for number, nodes, pixel, weight in _corners(
        first.shape[0], sizes, windows, bins, node_index, node_level
    ):
        value = pixels[number][pixel].to(windows.dtype)
        total.index_add_(0, nodes, torch.where(weight == 0, 0, weight * value))
    return total.to(first.dtype)


def quadtree_gather_backward_reference(
    grad_output: Tensor,
    images: int,
    map_sizes: list[int],
    windows: Tensor,
    bins: Tensor,
    node_index: Tensor,
    node_level: Tensor,
) -> list[Tensor]:
    """Gradients of `quadtree_gather_reference` by the features.

    Args:
        grad_output: (T, C).
        images: B.
        map_sizes: height and width of every map in one list.
        windows, bins, node_index, node_level: as given to the operator.

    Returns:
        One (B, H, W, C) per map, dtype of grad_output.
    """
    shapes = list(zip(map_sizes[::2], map_sizes[1::2]))
    channels = grad_output.shape[1]
    grads = [windows.new_zeros(images * rows * columns, channels) for rows, columns in shapes]
    wide = grad_output.to(windows.dtype)
    for number, nodes, pixel, weight in _corners(
        images, map_sizes, windows, bins, node_index, node_level
    ):
        grads[number].index_add_(0, pixel, weight * wide[nodes])
    return [
        grad.view(images, rows, columns, channels).to(grad_output.dtype)
        for grad, (rows, columns) in zip(grads, shapes)
    ]


def _corners(
    images: int,
    map_sizes: list[int],
    windows: Tensor,
    bins: Tensor,
    node_index: Tensor,
    node_level: Tensor,
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Map, node numbers (t,), pixel numbers (t,) and weights (t, 1), corner by corner."""
    _check_numbers(images, len(map_sizes) // 2, windows, bins, node_index, node_level)
    image, number, *samples = bins[node_index[:, 0], node_level].unbind(-1)
    top, left, height, width = windows[node_index[:, 0], node_level].unbind(-1)
    top, left = top + node_index[:, 1] * height, left + node_index[:, 2] * width
    for i, (rows, columns) in enumerate(zip(map_sizes[::2], map_sizes[1::2])):
        chosen = (number == i).nonzero().squeeze(1)
        counts = [axis[chosen] for axis in samples]
        across = _samples(top[chosen], height[chosen], counts[0], rows)
        along = _samples(left[chosen], width[chosen], counts[1], columns)
        for row, row_weight in across:
            for column, column_weight in along:
                pixel = (image[chosen] * rows + row) * columns + column
                yield i, chosen, pixel, (row_weight * column_weight).unsqueeze(1)


def _samples(
    start: Tensor, length: Tensor, samples: Tensor, size: int
) -> list[tuple[Tensor, Tensor]]:
    """The pixels (t,) that each cell touches on one axis and their weights, sample by sample."""
    most = int(samples.max()) if samples.numel() else 0
    pairs = [_pixels(start, length, sample, samples, size) for sample in range(most)]
    return [one for pair in pairs for one in pair if one[1].any()]


def _pixels(
    start: Tensor, length: Tensor, sample: int, samples: Tensor, size: int
) -> list[tuple[Tensor, Tensor]]:
    """The two pixels (t,) that one sample of each cell touches on one axis, and their weights."""
    at = start + (sample + 0.5) * length / samples
    weight = ((at >= -1) & (at <= size) & (sample < samples)) / samples.clamp(min=1).to(at.dtype)
    at = at.nan_to_num(nan=0.0).clamp(0, size - 1)
    low = at.long()
    inside = at - low
    return [(low, weight * (1 - inside)), ((low + 1).clamp(max=size - 1), weight * inside)]


def _check_numbers(
    images: int, maps: int, windows: Tensor, bins: Tensor, node_index: Tensor, node_level: Tensor
) -> None:
    instances, levels = windows.shape[:2]
    for name, numbers, limit in (
        ("image", bins[..., 0], images),
        ("feature map", bins[..., 1], maps),
        ("instance", node_index[:, 0], instances),
        ("level", node_level, levels),
    ):
        wrong = numbers[(numbers < 0) | (numbers >= limit)]
        if wrong.numel():
            raise RuntimeError(f"{name} {int(wrong[0])} is asked for, but there are {limit}")


def _check_features(features: Sequence[Tensor], scales: Sequence[float]) -> None:
    if not features or len(features) != len(scales):
        raise ValueError(
            f"features and scales must be as many, at least one, got {len(features)} features "
            f"and {len(scales)} scales"
        )
    first = features[0]
    for feature in features:
        if feature.dim() != 4 or feature.shape[:2] != first.shape[:2] or 0 in feature.shape[2:]:
            raise ValueError(
                "features must have shape (B, C, H, W) with equal B and C, got "
                f"{[tuple(one.shape) for one in features]}"
            )
        if feature.dtype not in VALUE_DTYPES or feature.dtype != first.dtype:
            raise ValueError(
                "features must all be float32, float64, float16 or bfloat16, got "
                f"{[one.dtype for one in features]}"
            )
        if feature.device != first.device:
            raise ValueError(f"features are on {first.device} and {feature.device}")


def _check_nodes(
    features: Sequence[Tensor],
    boxes_xyxy_abs: Tensor,
    image_index: Tensor,
    feature_level: Tensor,
    grid_sizes: Sequence[int],
) -> None:
    if boxes_xyxy_abs.dim() != 2 or boxes_xyxy_abs.shape[1] != 4:
        raise ValueError(
            f"boxes_xyxy_abs must have shape (N, 4), got {tuple(boxes_xyxy_abs.shape)}"
        )
    expected = compute_dtype(features[0])
    if boxes_xyxy_abs.dtype != expected:
        raise ValueError(
            f"boxes_xyxy_abs must be {expected} with features of {features[0].dtype}, got "
            f"{boxes_xyxy_abs.dtype}: in lower precision the boxes would move"
        )
    if not grid_sizes or any(size < 1 for size in grid_sizes):
        raise ValueError(f"grid_sizes must hold at least one positive int, got {grid_sizes}")
    _check_int64("image_index", image_index, (boxes_xyxy_abs.shape[0],))
    _check_int64("feature_level", feature_level, (boxes_xyxy_abs.shape[0], len(grid_sizes)))


def _check_int64(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    if tensor.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, got {tensor.dtype}")


def _channel_last(feature: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H, W, C), contiguous."""
    return feature.permute(0, 2, 3, 1).contiguous()


def _fake(
    features: Sequence[Tensor],
    windows: Tensor,
    bins: Tensor,
    node_index: Tensor,
    node_level: Tensor,
) -> Tensor:
    return features[0].new_empty(node_level.shape[0], features[0].shape[3])


def _fake_backward(
    grad_output: Tensor,
    images: int,
    map_sizes: list[int],
    windows: Tensor,
    bins: Tensor,
    node_index: Tensor,
    node_level: Tensor,
) -> list[Tensor]:
    shapes = zip(map_sizes[::2], map_sizes[1::2])
    channels = grad_output.shape[1]
    return [grad_output.new_empty(images, rows, columns, channels) for rows, columns in shapes]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, *nodes = inputs
    ctx.images = features[0].shape[0]
    ctx.map_sizes = [size for feature in features for size in feature.shape[1:3]]
    ctx.save_for_backward(*nodes)


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
    refuse_nondeterminism("quadtree_gather", grad_output.device)
    grads = torch.ops.queryseg.quadtree_gather_backward(
        grad_output, ctx.images, ctx.map_sizes, *ctx.saved_tensors
    )
    return grads, None, None, None, None


define_op(
    "quadtree_gather(Tensor[] features, Tensor windows, Tensor bins, Tensor node_index, "
    "Tensor node_level) -> Tensor",
    fallback=quadtree_gather_reference,
    fake=_fake,
)
define_backward(
    "quadtree_gather",
    "quadtree_gather_backward(Tensor grad_output, SymInt images, SymInt[] map_sizes, "
    "Tensor windows, Tensor bins, Tensor node_index, Tensor node_level) -> Tensor[]",
    fallback=quadtree_gather_backward_reference,
    fake=_fake_backward,
    differentiate=_differentiate,
    save=_save,
)
