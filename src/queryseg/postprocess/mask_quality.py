"""How sure a mask is of its own foreground."""

from torch import Tensor


def mask_quality(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Mean probability over the foreground of each mask (the mask score of Mask2Former).

    Args:
        mask_logits: (N, H, W).
        masks: (N, H, W) bool, the foreground.

    Returns:
        (N,) in [0, 1]; 0 for a mask without foreground.
    """
    probs = mask_logits.sigmoid()
    return (probs * masks).sum((1, 2)) / (masks.sum((1, 2)) + 1e-6)
