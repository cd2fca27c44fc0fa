"""Boxes of a batch of images in one list."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RoIs:
    """N boxes, image by image.

    Attributes:
        boxes_xyxy_abs: (N, 4) float32, in pixels of the padded images.
        image_index: (N,) int64.
    """

    boxes_xyxy_abs: Tensor
    image_index: Tensor

    @classmethod
    def from_images(cls, boxes: Sequence[Tensor]) -> "RoIs":
        """Join the boxes (n_i, 4) of the images.

        >>> RoIs.from_images([torch.zeros(1, 4), torch.ones(2, 4)]).image_index.tolist()
        [0, 1, 1]
        """
        joined = torch.cat(list(boxes))
        numbers = [
            boxes[i].new_full((len(boxes[i]),), i, dtype=torch.long) for i in range(len(boxes))
        ]
        return cls(joined.detach(), torch.cat(numbers))

    def __len__(self) -> int:
        return len(self.image_index)

    def __getitem__(self, chosen: Tensor | slice) -> "RoIs":
        return RoIs(self.boxes_xyxy_abs[chosen], self.image_index[chosen])

    def pyramid_levels(
        self, num_levels: int, finest_level: int, box_size: int = 224, box_level: int = 4
    ) -> Tensor:
        """The pyramid level that suits each box: floor(box_level + log2(sqrt(area) / box_size)).

        Args:
            num_levels: L.
            finest_level: log2 of the finest stride.
            box_size: side in pixels of a box that belongs to `box_level`.
            box_level: its level, as log2 of the stride.

        Returns:
            (N,) int64 in [0, L - 1], 0 the finest.
        """
        sides = self.boxes_xyxy_abs[:, 2:] - self.boxes_xyxy_abs[:, :2]
        size = (sides[:, 0] * sides[:, 1]).clamp(min=0).sqrt()
        level = torch.floor(box_level + torch.log2(size / box_size + 1e-8))
        return (level - finest_level).clamp(0, num_levels - 1).long()
