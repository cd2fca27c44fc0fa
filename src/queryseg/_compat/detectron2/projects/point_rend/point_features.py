"""Values of feature maps at points with coordinates in [0, 1]."""

from typing import Any

import torch
from torch.nn import functional as F

__all__ = ["generate_regular_grid_point_coords", "get_point_coords_wrt_image", "point_sample"]


def point_sample(input: torch.Tensor, point_coords: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """Return `grid_sample` of maps (N, C, H, W) at points (N, P, 2) -> (N, C, P), or
    (N, h, w, 2) -> (N, C, h, w); coordinates are (x, y) in [0, 1], `kwargs` go to `grid_sample`.
    """
    is_list = point_coords.dim() == 3
    grid = point_coords.unsqueeze(2) if is_list else point_coords
    values = F.grid_sample(input, 2.0 * grid - 1.0, **kwargs)
    return values.squeeze(3) if is_list else values


def generate_regular_grid_point_coords(
    R: int, side_size: int, device: torch.device
) -> torch.Tensor:
    """Return the centres of a grid of `side_size`² cells over [0, 1]², row by row, `R` times."""
    centres = (torch.arange(side_size, device=device, dtype=torch.float32) + 0.5) / side_size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(1, -1, 2).expand(R, -1, -1)


@torch.no_grad()
def get_point_coords_wrt_image(
    boxes_coords: torch.Tensor, point_coords: torch.Tensor
) -> torch.Tensor:
    """Return points (R, P, 2) given relative to boxes (R, 4) in the coordinates of the boxes."""
    corner, opposite = boxes_coords[:, None, :2], boxes_coords[:, None, 2:]
    return corner + point_coords * (opposite - corner)
