"""Which part of the image a mask is predicted in: the box of its query, or all of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.layers import paste_masks_in_image
from torch import Tensor
from torchvision.ops import roi_align

from queryseg.postprocess import resize_masks
from queryseg.projects.mask_frozen_detr.detections import Detections

STRIDE = 4
"""Of the map that masks are read from."""


@dataclass(frozen=True)
class OutputSize:
    """What the masks of an image have to be brought to.

    Args:
        padded: (H, W) of the batch.
        image: (H, W) of the image in it.
        output: (H, W) of the masks to return.
    """

    padded: tuple[int, int]
    image: tuple[int, int]
    output: tuple[int, int]


class BoxRegions:
    """The box of each query as a square grid of cells (equation 3).

    Args:
        size: cells along each side.
        sampling_ratio: samples along each side of a cell; 0 takes as many as a cell has pixels.
    """

    def __init__(self, *, size: int = 32, sampling_ratio: int = 0) -> None:
        self.size = size
        self.sampling_ratio = sampling_ratio

    def pool(self, features: Tensor, detections: Detections) -> Tensor:
        """Features (B, d, h, w) inside each box, as (N, size, size, d)."""
        index = detections.image_idx[:, None].to(detections.boxes_xyxy_abs)
        pooled = roi_align(
            features,
            torch.cat((index, detections.boxes_xyxy_abs), dim=1).to(features.dtype),
            self.size,
            spatial_scale=1 / STRIDE,
            sampling_ratio=self.sampling_ratio,
            aligned=True,
        )
        return pooled.movedim(1, -1)

    def paste(self, mask_logits: Tensor, boxes_xyxy_abs: Tensor, size: OutputSize) -> Tensor:
        """Masks (N, H, W) bool of one image from logits (N, size, size) and their boxes (N, 4)."""
        (height, width), (out_height, out_width) = size.image, size.output
        scale = [out_width / width, out_height / height] * 2
        boxes = boxes_xyxy_abs.float() * boxes_xyxy_abs.new_tensor(scale).float()
        return paste_masks_in_image(mask_logits.float().sigmoid(), boxes, size.output, 0.5)


class WholeImage:
    """No boxes: the mask is read from the whole map (equation 1, Table 1 without RoIAlign)."""

    size = None

    def pool(self, features: Tensor, detections: Detections) -> Tensor:
        """Features (B, d, h, w) of the image of each query, as (N, h, w, d)."""
        return features.movedim(1, -1)[detections.image_idx]

    def paste(self, mask_logits: Tensor, boxes_xyxy_abs: Tensor, size: OutputSize) -> Tensor:
        """Masks (N, H, W) bool of one image from logits (N, h, w)."""
        resized: Sequence[Tensor] = [
            resize_masks(
                part.float(),
                padded_size=size.padded,
                image_size=size.image,
                output_size=size.output,
            )
            > 0
            for part in mask_logits.split(10)
        ]
        return torch.cat(list(resized))
