"""Values of feature maps at points, against a plain bilinear loop."""

import math

import numpy as np
import torch
from detectron2.projects.point_rend.point_features import (
    generate_regular_grid_point_coords,
    get_point_coords_wrt_image,
    point_sample,
)


def bilinear(image: np.ndarray, x: float, y: float) -> float:
    """Value at (x, y) in [0, 1] of an image whose pixel centres lie at (i + 0.5) / size."""
    height, width = image.shape
    column, row = x * width - 0.5, y * height - 0.5
    left, top = math.floor(column), math.floor(row)
    total = 0.0
    for r in (top, top + 1):
        for c in (left, left + 1):
            if 0 <= r < height and 0 <= c < width:
                total += image[r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def test_points_are_sampled_bilinearly_with_zeros_outside() -> None:
    maps = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    points = torch.rand(2, 11, 2, dtype=torch.float64) * 1.4 - 0.2
    values = point_sample(maps, points, align_corners=False)
    assert values.shape == (2, 3, 11)
    for n, c, p in np.ndindex(2, 3, 11):
        expected = bilinear(maps[n, c].numpy(), *points[n, p].tolist())
        assert math.isclose(values[n, c, p].item(), expected, abs_tol=1e-12)
    grid = point_sample(maps, points[:, :10].reshape(2, 2, 5, 2), align_corners=False)
    assert torch.equal(grid, values[:, :, :10].reshape(2, 3, 2, 5))


def test_a_grid_in_a_box_has_the_cells_centres() -> None:
    grid = generate_regular_grid_point_coords(2, 2, torch.device("cpu"))
    assert torch.allclose(grid[1], torch.tensor([[1, 1], [3, 1], [1, 3], [3, 3]]) / 4)
    boxes = torch.tensor([[10.0, 20, 14, 28], [0, 0, 1, 1]])
    points = get_point_coords_wrt_image(boxes, grid)
    assert torch.allclose(points[0], torch.tensor([[11.0, 22], [13, 22], [11, 26], [13, 26]]))
    assert torch.allclose(points[1], grid[1])
