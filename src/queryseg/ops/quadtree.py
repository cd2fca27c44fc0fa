"""Nodes of the quadtree, their positions and labels (Ke et al., "Mask Transfiner", section 3).

Everything here works on maps of one channel or on the nodes alone, at next to no cost; the features
of the nodes, where the cost is, come from `queryseg.ops.gather_nodes`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from queryseg.ops.host_numbers import numbers_on

PropagationMode = Literal["bilinear", "half_pixel", "nearest"]


@dataclass(frozen=True)
class QuadtreeNodes:
    """The chosen nodes, instance by instance, coarse levels first, row by row.

    This is the order of the refiner's sequences: the nodes of an instance are one of them.
    """

    index: Tensor  # (T, 3) int64 as (instance, y, x)
    level: Tensor  # (T,) int64, the number of the node's grid
    counts: Tensor  # (N, G) int64, the nodes of each instance on each level
    grid_sizes: tuple[int, ...]  # rows (= columns) of the grids of the G levels

    @property
    def lengths(self) -> Tensor:
        """(N,) int64, the nodes of each instance."""
        return self.counts.sum(1)


def incoherent_masks(
    incoherence: Tensor, grid_sizes: Sequence[int], thresholds: Sequence[float]
) -> list[Tensor]:
    """Threshold one incoherence map at several resolutions, by repeating its pixels.

    Args:
        incoherence: (N, 1, h, h) probabilities.
        grid_sizes: rows (= columns) of each level, coarse to fine; multiples of h.
        thresholds: of each level; a pixel is incoherent if its probability reaches it.

    Returns:
        Bool masks (N, 1, size, size), one for each level.

    Raises:
        ValueError: a size that is not a multiple of h, or not one threshold for each.

    >>> masks = incoherent_masks(torch.tensor([[[[0.2, 0.7]] * 2]]), [2, 4], [0.1, 0.5])
    >>> [int(mask.sum()) for mask in masks]
    [4, 8]
    """
    size = _square(incoherence, "incoherence")
    if len(grid_sizes) != len(thresholds) or any(grid % size for grid in grid_sizes):
        raise ValueError(
            f"every level needs a threshold and a size that is a multiple of {size}, got sizes "
            f"{list(grid_sizes)} and thresholds {list(thresholds)}"
        )
    masks = []
    for grid, threshold in zip(grid_sizes, thresholds):
        mask = incoherence >= threshold
        times = grid // size
        masks.append(mask.repeat_interleave(times, 2).repeat_interleave(times, 3))
    return masks


def select_nodes(masks: Sequence[Tensor]) -> QuadtreeNodes:
    """List the pixels that are set in the masks of all levels.

    The host waits for the device once, as with every boolean mask.

    Args:
        masks: one bool mask (N, 1, size, size) for each level. A mask that is set everywhere makes
            a level of reference tokens.

    Returns:
        The nodes: by instance, then level, then row by row.

    Raises:
        ValueError: masks that are not bool, not square or of different N.

    >>> nodes = select_nodes([torch.ones(1, 1, 1, 1) > 0, torch.eye(2).view(1, 1, 2, 2) > 0])
    >>> nodes.index.tolist(), nodes.level.tolist()
    ([[0, 0, 0], [0, 0, 0], [0, 1, 1]], [0, 1, 1])
    """
    sizes = [_square(mask, "masks") for mask in masks]
    if not masks or any(mask.dtype != torch.bool or len(mask) != len(masks[0]) for mask in masks):
        raise ValueError(
            "masks must be at least one bool mask (N, 1, size, size) with equal N, got "
            f"{[(tuple(mask.shape), mask.dtype) for mask in masks]}"
        )
    flat = [mask.flatten(1) for mask in masks]
    instance, place = torch.cat(flat, 1).nonzero().unbind(1)
    ends = numbers_on(place.device, [size * size for size in sizes]).cumsum(0)
    level = torch.bucketize(place, ends, right=True)
    size = numbers_on(place.device, sizes)[level]
    place = place - (ends[level] - size * size)
    y = place.div(size, rounding_mode="floor")
    index = torch.stack([instance, y, place - y * size], 1)
    counts = torch.stack([mask.sum(1) for mask in flat], 1)
    return QuadtreeNodes(index, level, counts, tuple(sizes))


def sine_position_table(
    grid_sizes: Sequence[int], channels: int, temperature: float = 10000.0
) -> Tensor:
    """Sine position codes of the rows (or columns) of all grids, one after the other.

    Args:
        grid_sizes: rows of each level.
        channels: of a node's whole code; a multiple of 4.
        temperature: ratio of the longest to the shortest wave length.

    Returns:
        (sum of grid_sizes, channels / 2) float32: sines at even, cosines at odd channels.

    Raises:
        ValueError: channels that are not a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"channels must be a multiple of 4, got {channels}")
    pairs = torch.arange(channels // 4, dtype=torch.float32)
    frequency = temperature ** (4 * pairs / channels)
    rows = []
    for size in grid_sizes:
        at = torch.arange(1, size + 1, dtype=torch.float32) / (size + 1e-6) * (2 * math.pi)
        angle = at.unsqueeze(1) / frequency
        rows.append(torch.stack([angle.sin(), angle.cos()], 2).flatten(1))
    return torch.cat(rows)


def look_up_positions(nodes: QuadtreeNodes, table: Tensor) -> Tensor:
    """The position code of every node: that of its row, then that of its column.

    Args:
        nodes: T nodes.
        table: (sum of grid sizes, C / 2), the rows' codes of all grids one after the other, as
            from `sine_position_table`; the columns have the same codes.

    Returns:
        (T, C), dtype of the table.

    Raises:
        ValueError: a table that does not fit the grids.
    """
    if table.dim() != 2 or table.shape[0] != sum(nodes.grid_sizes):
        raise ValueError(
            f"table must have {sum(nodes.grid_sizes)} rows, one for each row of the grids "
            f"{nodes.grid_sizes}, got shape {tuple(table.shape)}"
        )
    sizes = numbers_on(nodes.level.device, nodes.grid_sizes)
    first = (sizes.cumsum(0) - sizes)[nodes.level]
    return table[nodes.index[:, 1:] + first.unsqueeze(1)].flatten(1)


def write_labels(masks: Tensor, index: Tensor, labels: Tensor) -> Tensor:
    """Put labels into the masks at the nodes of one level.

    Args:
        masks: (N, 1, h, w).
        index: (t, 3) int64 as (instance, y, x).
        labels: (t,), cast to the dtype of the masks.

    Returns:
        (N, 1, h, w), a copy; differentiable by masks and labels.
    """
    instance, y, x = index.unbind(1)
    return masks.index_put((instance, torch.zeros_like(y), y, x), labels.to(masks.dtype))


def propagate_labels(
    masks: Tensor,
    nodes: QuadtreeNodes,
    labels: Tensor,
    *,
    mode: PropagationMode = "bilinear",
    level_totals: Sequence[int] | None = None,
) -> Tensor:
    """Correct coarse masks level by level: write the nodes' labels, enlarge, write the next.

    Levels coarser than the masks hold reference tokens and are passed over. A level of which no
    instance has a node is passed over too, except the last, as in the official code: the masks are
    enlarged to the next level at once.

    Args:
        masks: (N, 1, h, h) coarse probabilities; h is the size of one of the levels.
        nodes: T nodes of the N instances, levels coarse to fine.
        labels: (T,) refined probabilities.
        mode: "bilinear" (corners aligned, as the official code), "half_pixel" (bilinear, cells
            aligned) or "nearest" (as the paper).
        level_totals: nodes on each level, if the host knows them; 0 passes a level over. Without
            them the host waits for the device.

    Returns:
        (N, 1, size, size) at the finest level.

    Raises:
        ValueError: no level of the masks' size, an unknown mode, or not one label for each node.
    """
    size = _square(masks, "masks")
    if size not in nodes.grid_sizes or len(masks) != len(nodes.counts):
        raise ValueError(
            f"masks must be (N, 1, size, size) for {len(nodes.counts)} instances with a size "
            f"among {nodes.grid_sizes}, got {tuple(masks.shape)}"
        )
    if labels.shape != nodes.level.shape:
        raise ValueError(f"labels must have shape {tuple(nodes.level.shape)}, got {labels.shape}")
    if mode not in get_args(PropagationMode):
        raise ValueError(f"mode must be one of {get_args(PropagationMode)}, got {mode!r}")
    totals = nodes.counts.sum(0).tolist() if level_totals is None else level_totals
    first = nodes.grid_sizes.index(size)
    last = len(nodes.grid_sizes) - 1
    for level in range(first, last + 1):
        if not totals[level] and level != last:
            continue
        if nodes.grid_sizes[level] != masks.shape[-1]:
            masks = _enlarge(masks, nodes.grid_sizes[level], mode)
        masks = _write_level(masks, nodes, labels, level)
    return masks


def _write_level(masks: Tensor, nodes: QuadtreeNodes, labels: Tensor, level: int) -> Tensor:
    """Write the labels of one level; the others go to a spare place, so none is counted."""
    size = masks.shape[-1]
    instance, y, x = nodes.index.unbind(1)
    spare = masks.new_zeros(1)
    place = torch.where(
        nodes.level == level, (instance * size + y) * size + x, torch.tensor(masks.numel())
    )
    flat = torch.cat([masks.flatten(), spare]).scatter(0, place, labels.to(masks.dtype))
    return flat[:-1].view_as(masks)


def _enlarge(masks: Tensor, size: int, mode: PropagationMode) -> Tensor:
    if mode == "nearest":
        return F.interpolate(masks, (size, size), mode="nearest")
    aligned = mode == "bilinear"
    return F.interpolate(masks, (size, size), mode="bilinear", align_corners=aligned)


def _square(maps: Tensor, name: str) -> int:
    if maps.dim() != 4 or maps.shape[1] != 1 or maps.shape[2] != maps.shape[3]:
        raise ValueError(f"{name} must have shape (N, 1, size, size), got {tuple(maps.shape)}")
    return maps.shape[2]
