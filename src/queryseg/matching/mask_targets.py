"""Ground truth of a batch for methods that match and learn on masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskTargets:
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

    @property
    def num_images(self) -> int:
        """Number of images in the batch."""
        return len(self.sizes)

    @cached_property
    def image_idx(self) -> Tensor:
        """(T,) int64: the image of each instance."""
        images = torch.arange(self.num_images)
        return images.repeat_interleave(torch.tensor(self.sizes)).to(self.labels.device)

    @cached_property
    def slot_idx(self) -> Tensor:
        """(T,) int64: the place of each instance within its image."""
        places = [torch.arange(size) for size in self.sizes]
        return torch.cat(places).to(self.labels.device)

    def padded(self, values: Tensor) -> Tensor:
        """Arrange a value per instance as one row per image, filled up with zeros.

        Args:
            values: (T, ...).

        Returns:
            (B, N, ...) with N the largest number of instances in one image.
        """
        rows = values.new_zeros((self.num_images, max(self.sizes, default=0), *values.shape[1:]))
        rows[self.image_idx, self.slot_idx] = values
        return rows
