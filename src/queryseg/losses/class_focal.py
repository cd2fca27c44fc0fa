"""Sigmoid focal loss over the classes of all queries."""

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss


def class_focal_loss(
    class_logits: Tensor, labels: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss (Lin et al., equation 5) of each class of each query, without "no object".

    Args:
        class_logits: (..., K).
        labels: (...) int64, K where a query has no object.
        alpha: weight of the positive class; the others weigh 1 - alpha.
        gamma: exponent that makes well classified entries count less.

    Returns:
        A scalar, the sum; the caller divides it by the number of objects.

    >>> import torch
    >>> class_focal_loss(torch.zeros(1, 2), torch.tensor([1]))
    tensor(0.1733)
    """
    targets = F.one_hot(labels, class_logits.shape[-1] + 1)[..., :-1].to(class_logits.dtype)
    return sigmoid_focal_loss(class_logits, targets, alpha, gamma, reduction="sum")
