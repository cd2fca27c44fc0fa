"""The instances of a batch, one after the other, and as rows of one image each."""

from functools import cached_property

import torch
from torch import Tensor


class BatchOrder:
    """Base of the targets: which image an instance belongs to, and its place there.

    A subclass has `labels` (T,) and `sizes`, the number of instances of each image, which add up
    to T.
    """

    labels: Tensor
    sizes: tuple[int, ...]

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
