"""Ground truth of a batch for methods that match and learn on boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from detectron2.structures import Instances
from torch import Tensor
from torchvision.ops import box_convert

from queryseg.matching.batch_order import BatchOrder


@dataclass(frozen=True)
class BoxTargets(BatchOrder):
    """Instances of all images of a batch, one after the other.

    Args:
        labels: (T,) int64 class of each instance.
        boxes_xyxy_abs: (T, 4) in pixels of the image before padding.
        image_sizes: (B, 2) height and width of each image before padding.
        sizes: number of instances of each image; they add up to T.
    """

    labels: Tensor
    boxes_xyxy_abs: Tensor
    image_sizes: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def from_instances(cls, instances: Sequence[Instances], device: torch.device) -> "BoxTargets":
        """Join the images of a batch.

        Args:
            instances: per image, with `gt_classes` and `gt_boxes`.
            device: where the targets go.
        """
        return cls(
            labels=torch.cat([x.gt_classes for x in instances]).to(device),
            boxes_xyxy_abs=torch.cat([x.gt_boxes.tensor for x in instances]).to(device),
            image_sizes=torch.tensor([x.image_size for x in instances], device=device),
            sizes=tuple(len(x) for x in instances),
        )

    @cached_property
    def scales(self) -> Tensor:
        """(B, 4) width, height, width, height of each image: from shares to pixels."""
        return self.image_sizes.flip(1).repeat(1, 2).to(self.boxes_xyxy_abs.dtype)

    @cached_property
    def boxes_cxcywh_norm(self) -> Tensor:
        """(T, 4) centre and size as shares of the image before padding."""
        boxes = box_convert(self.boxes_xyxy_abs, "xyxy", "cxcywh")
        return boxes / self.scales[self.image_idx]

    def without_classes(self) -> "BoxTargets":
        """The same instances, all of class 0: what class-agnostic proposals learn."""
        return BoxTargets(
            torch.zeros_like(self.labels), self.boxes_xyxy_abs, self.image_sizes, self.sizes
        )
