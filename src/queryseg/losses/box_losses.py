"""Losses of boxes matched with their ground truth."""

from torch import Tensor

from queryseg.boxes import generalized_iou


def box_l1_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Sum of the absolute differences of the four coordinates of each box.

    Args:
        boxes: (N, 4); DETR and its kin take cx, cy, w, h as shares of the image.
        targets: (N, 4) in the same format.

    Returns:
        (N,); the caller sums and normalises.

    >>> import torch
    >>> box_l1_loss(torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([[0.5, 0.4, 0.2, 0.4]]))
    tensor([0.3000])
    """
    return (boxes - targets).abs().sum(-1)


def box_giou_loss(boxes: Tensor, targets: Tensor, eps: float = 1e-6) -> Tensor:
    """One minus the generalized intersection over union of each box.

    Args:
        boxes: (N, 4) as x0, y0, x1, y1.
        targets: (N, 4) in the same unit.
        eps: least area of union and hull: of a pixel for boxes in pixels; smaller boxes need less.

    Returns:
        (N,); the caller sums and normalises.

    >>> import torch
    >>> box_giou_loss(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[0.0, 0.0, 2.0, 1.0]]))
    tensor([0.5000])
    """
    return 1 - generalized_iou(boxes, targets, eps)
