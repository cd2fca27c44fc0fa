"""Boxes around masks."""

import torch
from torch import Tensor


def boxes_from_masks(masks: Tensor) -> Tensor:
    """The tightest box around each mask, in pixel edges; all zero for an empty mask.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, 4) float32 as absolute x0, y0, x1, y1; a single pixel at (0, 0) gives 0, 0, 1, 1.
    """
    columns, rows = masks.any(1), masks.any(2)
    x0, x1 = _extent(columns)
    y0, y1 = _extent(rows)
    return torch.stack((x0, y0, x1, y1), dim=1).float()


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First occupied place and one past the last, of each row of (N, S) bool."""
    size = occupied.shape[1]
    first = occupied.int().argmax(1)
    past = size - occupied.flip(1).int().argmax(1)
    some = occupied.any(1)
    return first * some, past * some
