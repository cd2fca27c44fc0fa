"""Terms of the matching cost between each prediction and each ground-truth instance of an image.

Every term is a pure function from (B, Q, ...) predictions and (B, N, ...) instances to (B, Q, N).
They expect float32: matchers switch autocast off.
"""

import torch.nn.functional as F
from torch import Tensor


def cost_class(class_probs: Tensor, labels: Tensor) -> Tensor:
    """Minus the probability of the instance's class.

    Args:
        class_probs: (B, Q, K) or (B, Q, K+1).
        labels: (B, N) int64.
    """
    index = labels[:, None, :].expand(-1, class_probs.shape[1], -1)
    return -class_probs.gather(2, index)


def cost_mask(mask_logits: Tensor, mask_targets: Tensor) -> Tensor:
    """Mean binary cross-entropy over the same P points.

    Written as softplus(x) - x t, which needs one matrix product for all pairs.

    Args:
        mask_logits: (B, Q, P).
        mask_targets: (B, N, P) in [0, 1].
    """
    background = F.softplus(mask_logits).sum(-1)
    overlap = mask_logits @ mask_targets.transpose(1, 2)
    return (background[..., None] - overlap) / mask_logits.shape[-1]


def cost_dice(mask_logits: Tensor, mask_targets: Tensor) -> Tensor:
    """One minus the Dice coefficient over the same P points, with one added above and below.

    Args:
        mask_logits: (B, Q, P).
        mask_targets: (B, N, P) in [0, 1].
    """
    probs = mask_logits.sigmoid()
    overlap = probs @ mask_targets.transpose(1, 2)
    total = probs.sum(-1)[..., None] + mask_targets.sum(-1)[:, None]
    return 1 - (2 * overlap + 1) / (total + 1)
