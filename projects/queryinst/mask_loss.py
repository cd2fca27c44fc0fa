"""Dice loss of whole masks."""

from torch import Tensor

EPS = 1e-5
"""Added to the sum of both areas."""


def dice_loss(mask_logits: Tensor, mask_targets: Tensor) -> Tensor:
    """One minus the Dice coefficient of each mask, with squares below (V-Net).

    An empty target costs one, whatever is predicted.

    Args:
        mask_logits: (N, h, w).
        mask_targets: (N, h, w) in [0, 1].

    Returns:
        (N,); the caller sums and normalises.

    >>> import torch
    >>> dice_loss(torch.zeros(1, 1, 4), torch.tensor([[[1.0, 1.0, 0.0, 0.0]]]))
    tensor([0.3333])
    """
    probs, targets = mask_logits.sigmoid().flatten(1), mask_targets.flatten(1)
    overlap = (probs * targets).sum(1)
    return 1 - 2 * overlap / (probs.square().sum(1) + targets.square().sum(1) + EPS)
