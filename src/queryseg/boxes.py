"""Overlap of boxes; `torchvision.ops.box_convert` changes their format."""

import torch
from torch import Tensor


def generalized_iou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Generalized intersection over union (Rezatofighi et al., algorithm 1), broadcast.

    One for equal boxes; below zero, down to minus one, the farther two boxes lie apart.

    Args:
        boxes: (..., 4) float as x0, y0, x1, y1.
        others: (..., 4), broadcast against `boxes`; (N, 1, 4) and (M, 4) give all pairs.
        eps: least area of union and hull, in the unit of the boxes squared.

    Returns:
        (...).

    >>> generalized_iou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([[0.0, 0, 2, 1], [4, 0, 6, 2]]))
    tensor([ 0.5000, -0.3333])
    """
    meet = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(
        boxes[..., :2], others[..., :2]
    )
    hull = torch.maximum(boxes[..., 2:], others[..., 2:]) - torch.minimum(
        boxes[..., :2], others[..., :2]
    )
    overlap = meet.clamp(min=0).prod(-1)
    union = (_area(boxes) + _area(others) - overlap).clamp(min=eps)
    around = hull.clamp(min=0).prod(-1).clamp(min=eps)
    return overlap / union - (around - union) / around


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)
