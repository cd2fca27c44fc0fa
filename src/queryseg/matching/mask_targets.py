"""Ground truth of a batch for methods that match and learn on masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from queryseg.matching.batch_order import BatchOrder


@dataclass(frozen=True)
class MaskTargets(BatchOrder):
    """Instances of all images of a batch, one after the other.

    Args:
        labels: (T,) int64 class of each instance.
        masks: (T, H, W) bool on the padded image, False on padding.
        sizes: number of instances of each image; they add up to T.
    """

    labels: Tensor
    masks: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def from_images(
        cls, labels: Sequence[Tensor], masks: Sequence[Tensor], padded_size: tuple[int, int]
    ) -> "MaskTargets":
        """Join the images of a batch, padding masks at the right and the bottom.

        Args:
            labels: per image (n,) int64.
            masks: per image (n, h, w), bool or 0/1, no larger than `padded_size`.
            padded_size: (H, W) of the batch.
        """
        sizes = tuple(len(image_labels) for image_labels in labels)
        joined = masks[0].new_zeros((sum(sizes), *padded_size), dtype=torch.bool)
        for part, image_masks in zip(joined.split(sizes), masks):
            height, width = image_masks.shape[-2:]
            part[:, :height, :width] = image_masks.bool()
        return cls(torch.cat(list(labels)), joined, sizes)
