"""Ground truth of a batch, and what the masks inside predicted boxes should be."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Instances
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from queryseg.matching import BoxTargets

MASKS_AT_ONCE = 64
"""Bitmaps that are turned into numbers at a time: 64 of 800 x 1344 pixels take 275 MB."""

COVERED = 0.5
"""A cell belongs to a mask if at least this share of it is covered."""


@dataclass(frozen=True)
class InstanceTargets(BoxTargets):
    """Boxes, classes and masks of all instances of a batch.

    Args:
        masks: per image (n, H, W) bool, on the image padded by itself.
    """

    masks: tuple[Tensor, ...]

    @classmethod
    def with_masks(
        cls, instances: Sequence[Instances], device: torch.device, size_divisibility: int
    ) -> "InstanceTargets":
        """Join the images of a batch.

        Args:
            instances: per image `gt_classes`, `gt_boxes` and `gt_masks` (bit masks).
            device: where the targets go.
            size_divisibility: masks are padded to multiples of this, as an image alone would be. A
                mask target near the border depends on it.
        """
        boxes = BoxTargets.from_instances(instances, device)
        masks = [x.gt_masks.tensor.to(device) for x in instances]
        return cls(
            boxes.labels,
            boxes.boxes_xyxy_abs,
            boxes.image_sizes,
            boxes.sizes,
            tuple(_padded(image_masks, size_divisibility) for image_masks in masks),
        )

    @torch.no_grad()
    def crop_masks(self, boxes_xyxy_abs: Tensor, tgt_idx: Tensor, resolution: int) -> Tensor:
        """What each mask should be inside a box, which is clipped to the padded image for this.

        Args:
            boxes_xyxy_abs: (P, 4) in pixels of the instance's image.
            tgt_idx: (P,) int64 instance within the batch.
            resolution: cells on each side.

        Returns:
            (P, resolution, resolution) 0 or 1, dtype of the boxes.
        """
        dtype = boxes_xyxy_abs.dtype
        targets = boxes_xyxy_abs.new_zeros(len(tgt_idx), resolution, resolution)
        first = 0
        for masks in (part for image in self.masks for part in image.split(MASKS_AT_ONCE)):
            here = (tgt_idx >= first) & (tgt_idx < first + len(masks))
            index = (tgt_idx[here] - first)[:, None].to(dtype)
            rois = torch.cat((index, _clipped(boxes_xyxy_abs[here], masks)), dim=1)
            covered = roi_align(
                masks[:, None].to(dtype), rois, resolution, sampling_ratio=0, aligned=True
            )
            targets[here] = (covered[:, 0] >= COVERED).to(dtype)
            first += len(masks)
        return targets


def _padded(masks: Tensor, divisibility: int) -> Tensor:
    height, width = masks.shape[-2:]
    return F.pad(masks, (0, -width % divisibility, 0, -height % divisibility))


def _clipped(boxes_xyxy_abs: Tensor, masks: Tensor) -> Tensor:
    height, width = masks.shape[-2:]
    sides = boxes_xyxy_abs.new_tensor([width, height, width, height])
    return boxes_xyxy_abs.clamp(min=0).minimum(sides)
