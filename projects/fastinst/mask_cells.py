"""Ground-truth masks on the coarse grid of a feature map."""

import torch
import torch.nn.functional as F
from torch import Tensor


def corner_pixels(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixel at the top left of each cell: nearest-neighbour sampling (release).

    Args:
        masks: (N, H, W) bool.
        size: (h, w) of the grid.

    Returns:
        (N, h * w) bool.
    """
    height, width = masks.shape[-2:]
    rows = torch.arange(size[0], device=masks.device) * height // size[0]
    columns = torch.arange(size[1], device=masks.device) * width // size[1]
    return masks[:, rows[:, None], columns].flatten(1)


def touched_cells(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Which cells hold any pixel of a mask.

    Args:
        masks: (N, H, W) bool.
        size: (h, w) of the grid.

    Returns:
        (N, h * w) bool.
    """
    (height, width), (rows, columns) = masks.shape[-2:], size
    if height % rows or width % columns:
        return (F.adaptive_max_pool2d(masks.float(), size) > 0).flatten(1)
    cells = masks.view(-1, rows, height // rows, columns, width // columns)
    return cells.any(4).any(2).flatten(1)
