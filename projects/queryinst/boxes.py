"""Boxes of QueryInst: formats, and the change that a stage predicts. They are never clipped."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

CENTRE_SCALE = 0.5
"""A centre moves by half the predicted delta times the side: weights (2, 2, 1, 1) of Detectron2."""

MAX_LOG_RATIO = abs(math.log(16 / 1000))
"""A side grows or shrinks by no more than this, in both directions (Sparse R-CNN bounds growth)."""


def boxes_from_centres(boxes_cxcywh: Tensor) -> Tensor:
    """(..., 4) centre, width and height to (..., 4) corners x0, y0, x1, y1."""
    centres, sides = boxes_cxcywh.split(2, dim=-1)
    return torch.cat((centres - sides / 2, centres + sides / 2), dim=-1)


def sides_of_images(image_sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """(B, 4) width, height, width, height of each image, in dtype and on the device of `like`."""
    return like.new_tensor([(width, height, width, height) for height, width in image_sizes])


def apply_deltas(boxes_xyxy: Tensor, deltas: Tensor) -> Tensor:
    """Move and scale boxes as a stage predicts.

    Args:
        boxes_xyxy: (..., 4).
        deltas: (..., 4): shift of the centre in half sides, logarithm of the ratio of the sides.

    Returns:
        (..., 4) corners, wherever they lie.

    >>> apply_deltas(torch.tensor([0.0, 0.0, 4.0, 2.0]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    tensor([2., 0., 6., 2.])
    """
    low, high = boxes_xyxy.split(2, dim=-1)
    shift, log_ratio = deltas.split(2, dim=-1)
    sides = high - low
    centres = (low + high) / 2 + CENTRE_SCALE * shift * sides
    sides = sides * log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return boxes_from_centres(torch.cat((centres, sides), dim=-1))
