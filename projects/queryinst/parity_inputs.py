"""Inputs and weights that the golden bundles of QueryInst describe."""

from collections.abc import MutableMapping

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

from queryseg.parity import named_generator, noise_image

CANVAS = (192, 256)
"""The batch that the features belong to; the second image is smaller."""

IMAGE_SIZES = ((192, 256), (160, 224))
STRIDES = (4, 8, 16, 32)

_BOXES = (
    ((20, 30, 120, 140), (100.5, 50.25, 250, 180), (5, 5, 60, 60), (0, 0, 256, 192)),
    ((30, 20, 150, 120), (60, 70, 220, 158)),
)
_LABELS = ((0, 17, 79, 17), (3, 56))


def golden_weights(state: MutableMapping[str, Tensor]) -> None:
    """The two exceptions from the fill: spread boxes, and small steps between the stages."""
    boxes = state["rpn_head.init_proposal_bboxes.weight"]
    values = named_generator("golden.init_proposal_bboxes").rand(*boxes.shape)
    values = np.concatenate((0.2 + 0.6 * values[:, :2], 0.1 + 0.7 * values[:, 2:]), axis=1)
    values[9::10, 2:] *= 3
    state["rpn_head.init_proposal_bboxes.weight"] = torch.as_tensor(values.astype(np.float32))
    for name in state:
        if name.endswith(".fc_reg.weight"):
            state[name] = state[name] * np.float32(0.3)


def golden_features(dtype: torch.dtype) -> list[Tensor]:
    """A smooth pyramid of two images, levels (2, 256, H, W)."""
    features = []
    for level, stride in enumerate(STRIDES):
        coarse = np.random.RandomState(100 + level).randn(2, 256, 6, 8).astype(np.float32)
        size = (CANVAS[0] // stride, CANVAS[1] // stride)
        smooth = F.interpolate(
            torch.as_tensor(coarse).to(dtype), size, mode="bilinear", align_corners=False
        )
        features.append(smooth.contiguous(memory_format=torch.channels_last))
    return features


def golden_image() -> Tensor:
    """(3, H, W) uint8 RGB; the recipe counts its channels as BGR."""
    return noise_image(*CANVAS).flip(0).contiguous()


def golden_instances(empty: tuple[int, ...] = ()) -> list[Instances]:
    """Ellipses in both images, none in those numbered in `empty`."""
    return [
        _ellipses(
            size,
            () if index in empty else _BOXES[index],
            () if index in empty else _LABELS[index],
        )
        for index, size in enumerate(IMAGE_SIZES)
    ]


def _ellipses(
    size: tuple[int, int], boxes: tuple[tuple[float, ...], ...], labels: tuple[int, ...]
) -> Instances:
    corners = torch.tensor(boxes, dtype=torch.float64).view(-1, 4)
    centres, radii = (corners[:, :2] + corners[:, 2:]) / 2, (corners[:, 2:] - corners[:, :2]) / 2
    y, x = (torch.arange(side, dtype=torch.float64) + 0.5 for side in size)
    across = ((x - centres[:, :1]) / radii[:, :1]).square()
    down = ((y - centres[:, 1:]) / radii[:, 1:]).square()
    return Instances(
        size,
        gt_boxes=Boxes(corners),
        gt_classes=torch.tensor(labels, dtype=torch.int64),
        gt_masks=BitMasks(across[:, None] + down[:, :, None] <= 1),
    )
