"""Cross-entropy over the classes and "no object"."""

import torch.nn.functional as F
from torch import Tensor


def class_cross_entropy(
    class_logits: Tensor, labels: Tensor, no_object_weight: float = 1.0
) -> Tensor:
    """Cross-entropy whose last class, "no object", weighs less than the others.

    The mean is weighted: the sum of the weighted terms is divided by the sum of the weights
    (FastInst section 3.6, L_cls).

    Args:
        class_logits: (B, Q, K+1); the last channel is "no object".
        labels: (B, Q) int64, K where a query has no object.
        no_object_weight: weight of the terms with label K.

    Returns:
        A scalar.

    >>> import torch
    >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 2.0]]])
    >>> class_cross_entropy(logits, torch.tensor([[0, 1]]), no_object_weight=0.1)
    tensor(0.6417)
    """
    weights = class_logits.new_ones(class_logits.shape[-1])
    weights[-1] = no_object_weight
    return F.cross_entropy(class_logits.flatten(0, 1), labels.flatten(), weights)
