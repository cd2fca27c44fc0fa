"""Random choice of training samples."""

import torch
from torch import Tensor

from detectron2.layers import nonzero_tuple


def subsample_labels(
    labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[Tensor, Tensor]:
    """Choose foreground and background samples at random.

    Args:
        labels: (N,) class of each sample; -1 is never chosen.
        num_samples: how many to choose, if there are that many.
        positive_fraction: at most this part is foreground; background fills the rest.
        bg_label: the background class.

    Returns:
        int64 indices of the chosen foreground and of the chosen background.
    """
    positive = nonzero_tuple((labels != -1) & (labels != bg_label))[0]
    negative = nonzero_tuple(labels == bg_label)[0]
    num_positive = min(len(positive), int(num_samples * positive_fraction))
    num_negative = min(len(negative), num_samples - num_positive)
    # The two draws, in this order, are part of what makes a seeded run repeatable.
    first = torch.randperm(len(positive), device=positive.device)[:num_positive]
    second = torch.randperm(len(negative), device=negative.device)[:num_negative]
    return positive[first], negative[second]
