"""Losses and costs on a few points of a mask instead of on all its pixels (PointRend)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POINTS_AT_ONCE = 2**22
"""How many points are worked on together; bounds the memory of images with many instances."""


def uniform_points(rows: int, num_points: int, device: torch.device) -> Tensor:
    """(rows, num_points, 2) points (x, y), uniform in the unit square."""
    return torch.rand(rows, num_points, 2, device=device)


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of float maps at points; everything outside a map is zero.

    Args:
        maps: (N, C, h, w) float.
        points: (N, P, 2) as (x, y); the unit square spans the map from edge to edge.

    Returns:
        (N, C, P).

    >>> sample_maps(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[0.5, 0.5], [0.75, 0.5]]]))
    tensor([[[0.5000, 1.0000]]])
    """
    grid = 2.0 * points[:, :, None, :] - 1.0
    return F.grid_sample(maps, grid, align_corners=False)[..., 0]


def sample_masks(masks: Tensor, points: Tensor, mask_idx: Tensor | None = None) -> Tensor:
    """Bilinear values of bool masks at points; everything outside a mask is zero.

    The same as `sample_maps` on the masks as float, reading only the four pixels around each point:
    large masks need neither a float copy nor one copy for each set of points.

    Args:
        masks: (T, H, W) bool.
        points: (N, P, 2) float as (x, y), edge to edge. A point that is NaN has the value NaN.
        mask_idx: (N,) int64, the mask of each row of points; by default row n is for mask n.

    Returns:
        (N, P) in the dtype of `points`.

    >>> sample_masks(torch.tensor([[[False, True]]]), torch.tensor([[[0.5, 0.5], [1.0, 0.5]]]))
    tensor([[0.5000, 0.5000]])
    """
    if mask_idx is None:
        mask_idx = torch.arange(len(masks), device=masks.device)
    if points.shape[0] * points.shape[1] <= POINTS_AT_ONCE:
        return _sample_masks(masks, points, mask_idx)
    rows = _rows_at_once(points.shape[1])
    return torch.cat(
        [_sample_masks(masks, *part) for part in zip(points.split(rows), mask_idx.split(rows))]
    )


def _rows_at_once(num_points: int) -> int:
    return max(POINTS_AT_ONCE // max(num_points, 1), 1)


def _sample_masks(masks: Tensor, points: Tensor, mask_idx: Tensor) -> Tensor:
    height, width = masks.shape[-2:]
    start = mask_idx[:, None] * (height * width)
    x = points[..., 0] * width - 0.5
    y = points[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    values = torch.zeros_like(x)
    for row, row_weight in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, column_weight in ((left, 1 - (x - left)), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at_row, at_column = (torch.where(inside, at, 0.0).long() for at in (row, column))
            pixel = at_row * width + at_column
            values += masks.take(start + pixel) * inside * row_weight * column_weight
    return values


class PointSampler(nn.Module):
    """Chooses the points of a mask on which losses and costs are computed.

    Args:
        num_points: P, points per mask.
        oversample_ratio: how many times P candidates are drawn when looking for uncertain points.
        importance_sample_ratio: share of P taken from the most uncertain candidates; the rest is
            uniform.
        draw: where uniform points come from, as `uniform_points`.
    """

    def __init__(
        self,
        *,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
        draw: Callable[[int, int, torch.device], Tensor] = uniform_points,
    ) -> None:
        super().__init__()
        self.num_points = num_points
        self.num_candidates = int(num_points * oversample_ratio)
        self.num_uncertain = int(num_points * importance_sample_ratio)
        self.draw = draw

    def uniform(self, rows: int, device: torch.device) -> Tensor:
        """(rows, P, 2) uniform points."""
        return self.draw(rows, self.num_points, device)

    @torch.no_grad()
    def uncertain(self, mask_logits: Tensor) -> Tensor:
        """Points where the mask is undecided, mixed with uniform ones.

        Args:
            mask_logits: (N, h, w) float.

        Returns:
            (N, P, 2): the candidates with the smallest absolute logit, then the uniform points.
        """
        if not len(mask_logits):
            return self.uniform(0, mask_logits.device)
        chunks = mask_logits.split(_rows_at_once(self.num_candidates))
        return torch.cat([self._uncertain(chunk) for chunk in chunks])

    def _uncertain(self, mask_logits: Tensor) -> Tensor:
        rows, device = len(mask_logits), mask_logits.device
        candidates = self.draw(rows, self.num_candidates, device)
        doubt = -sample_maps(mask_logits[:, None], candidates)[:, 0].abs()
        chosen = doubt.topk(self.num_uncertain, dim=1, sorted=False).indices
        undecided = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
        rest = self.draw(rows, self.num_points - self.num_uncertain, device)
        return torch.cat((undecided, rest), dim=1)
