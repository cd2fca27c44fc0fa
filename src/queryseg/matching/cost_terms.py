"""Terms of the matching cost between each prediction and each ground-truth instance of an image.

Every term is a pure function from (B, Q, ...) predictions and (B, N, ...) instances to (B, Q, N).
They expect float32: matchers switch autocast off.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from queryseg.boxes import generalized_iou


def cost_class(class_probs: Tensor, labels: Tensor) -> Tensor:
    """Minus the probability of the instance's class.

    Args:
        class_probs: (B, Q, K) or (B, Q, K+1).
        labels: (B, N) int64.
    """
    index = labels[:, None, :].expand(-1, class_probs.shape[1], -1)
    return -class_probs.gather(2, index)


def cost_focal(
    class_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    eps: float = 1e-12,
) -> Tensor:
    """What the focal loss of a query would change by if it took the instance's class.

    The loss of that class as a positive minus its loss as a negative (Deformable DETR).

    Args:
        class_logits: (B, Q, K), for a sigmoid.
        labels: (B, N) int64.
        alpha: weight of positives; negatives weigh 1 - alpha.
        gamma: exponent of the focal loss.
        eps: added to probabilities before the logarithm.
    """
    index = labels[:, None, :].expand(-1, class_logits.shape[1], -1)
    probs = class_logits.sigmoid().gather(2, index)
    positive = -alpha * (1 - probs) ** gamma * (probs + eps).log()
    negative = -(1 - alpha) * probs**gamma * (1 - probs + eps).log()
    return positive - negative


def cost_box(boxes: Tensor, targets: Tensor) -> Tensor:
    """Sum of the absolute differences of the four coordinates.

    Args:
        boxes: (B, Q, 4).
        targets: (B, N, 4) in the same format.
    """
    return torch.cdist(boxes, targets, p=1)


def cost_giou(boxes_xyxy: Tensor, targets_xyxy: Tensor, eps: float = 1e-6) -> Tensor:
    """Minus the generalized intersection over union.

    Args:
        boxes_xyxy: (B, Q, 4).
        targets_xyxy: (B, N, 4) in the same unit.
        eps: least area of union and hull.
    """
    return -generalized_iou(boxes_xyxy[:, :, None], targets_xyxy[:, None], eps)


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
