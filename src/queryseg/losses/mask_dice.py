"""Dice loss of masks on sampled points."""

from torch import Tensor


def mask_dice_loss(mask_logits: Tensor, mask_targets: Tensor) -> Tensor:
    """One minus the Dice coefficient of each mask (V-Net; FastInst equation 4, L_dice).

    One is added above and below the fraction, so that an empty mask predicted empty costs nothing.

    Args:
        mask_logits: (N, P) at the points.
        mask_targets: (N, P) in [0, 1].

    Returns:
        (N,), one loss for each mask; the caller sums and normalises.

    >>> import torch
    >>> mask_dice_loss(torch.tensor([[-99.0, -99.0], [99.0, -99.0]]), torch.zeros(2, 2))
    tensor([0.0000, 0.5000])
    """
    probs = mask_logits.sigmoid()
    overlap = (probs * mask_targets).sum(1)
    return 1 - (2 * overlap + 1) / (probs.sum(1) + mask_targets.sum(1) + 1)
