"""Binary cross-entropy of masks on sampled points."""

import torch.nn.functional as F
from torch import Tensor


def mask_bce_loss(mask_logits: Tensor, mask_targets: Tensor) -> Tensor:
    """Mean binary cross-entropy over the points of each mask (FastInst equation 4, L_ce).

    Args:
        mask_logits: (N, P) at the points.
        mask_targets: (N, P) in [0, 1]; soft where a point lies between pixels.

    Returns:
        (N,), one loss for each mask; the caller sums and normalises.

    >>> import torch
    >>> mask_bce_loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
    tensor([0.6931])
    """
    losses = F.binary_cross_entropy_with_logits(mask_logits, mask_targets, reduction="none")
    return losses.mean(1)
