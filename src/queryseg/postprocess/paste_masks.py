"""Masks of boxes, moved back into the image."""

import math

import torch
from torch import Tensor

PASTE_BYTES = 1 << 28
"""Memory for the values of the masks that an accelerator pastes at a time."""


def paste_masks(
    mask_probs: Tensor,
    boxes_xyxy_abs: Tensor,
    image_size: tuple[int, int],
    threshold: float = 0.5,
) -> Tensor:
    """Interpolate each mask at the pixels of its box and cut it at a threshold.

    Bilinear, pixel centres at +0.5, zero around the mask: what Detectron2's `paste_masks_in_image`
    computes. But boxes may lie anywhere, wholly outside too, and none is clipped first: a mask that
    is squeezed into the visible part of its box is another mask.

    Args:
        mask_probs: (N, h, w) in [0, 1].
        boxes_xyxy_abs: (N, 4) in pixels of the image. A box without extent has an empty mask.
        image_size: (height, width).
        threshold: a pixel belongs to the mask where its value is at least this.

    Returns:
        (N, height, width) bool.

    >>> paste_masks(torch.ones(1, 2, 2), torch.tensor([[-2.0, 0.0, 2.0, 1.0]]), (2, 3)).int()
    tensor([[[1, 1, 0],
             [0, 0, 0]]], dtype=torch.int32)
    """
    height, width = image_size
    pasted = torch.zeros(len(mask_probs), height, width, dtype=torch.bool, device=mask_probs.device)
    if mask_probs.device.type != "cpu":
        at_once = max(1, PASTE_BYTES // (4 * max(1, height * width)))
        for first in range(0, len(mask_probs), at_once):
            part = slice(first, first + at_once)
            values = mask_values(mask_probs[part], boxes_xyxy_abs[part], image_size)
            pasted[part] = values >= threshold
        return pasted
    for mask, probs, box in zip(pasted, mask_probs, boxes_xyxy_abs):
        window = _pixels_near(box, tuple(probs.shape), image_size)
        mask[window] = _sample(probs[None], box[None], window)[0] >= threshold
    return pasted


def mask_values(mask_probs: Tensor, boxes_xyxy_abs: Tensor, image_size: tuple[int, int]) -> Tensor:
    """(N, height, width) values that `paste_masks` cuts at its threshold."""
    window = (slice(0, image_size[0]), slice(0, image_size[1]))
    return _sample(mask_probs, boxes_xyxy_abs, window)


def _pixels_near(
    box: Tensor, cells: tuple[int, ...], image_size: tuple[int, int]
) -> tuple[slice, slice]:
    """Rows and columns that a mask reaches: half a cell beyond its box, inside the image."""
    x0, y0, x1, y1 = box.tolist()
    spans = ((y0, y1, cells[0], image_size[0]), (x0, x1, cells[1], image_size[1]))
    return tuple(_span(*span) for span in spans)  # type: ignore[return-value]


def _span(low: float, high: float, cells: int, size: int) -> slice:
    margin = (high - low) / cells / 2
    if not 0 < margin < math.inf:  # NaN too
        return slice(0, 0)
    start = int(min(max(low - margin, 0), size))
    return slice(start, max(start, int(min(max(high + margin + 1, 0), size))))


def _sample(mask_probs: Tensor, boxes: Tensor, window: tuple[slice, slice]) -> Tensor:
    """Values at the pixels of a window, (n, rows, columns), one axis after the other."""
    rows = _weights(boxes[:, 1], boxes[:, 3], mask_probs.shape[1], window[0])
    columns = _weights(boxes[:, 0], boxes[:, 2], mask_probs.shape[2], window[1])
    return rows @ mask_probs.to(boxes.dtype) @ columns.mT


def _weights(low: Tensor, high: Tensor, cells: int, pixels: slice) -> Tensor:
    """(n, pixels, cells) share of each cell in each pixel: one less the distance in cells."""
    centres = torch.arange(pixels.start, pixels.stop, device=low.device) + 0.5
    extent = high - low
    extent = extent.where((extent > 0) & extent.isfinite(), torch.nan)
    place = (centres - low[:, None]) / extent[:, None] * cells - 0.5
    distance = place[..., None] - torch.arange(cells, device=low.device)
    return (1 - distance.abs()).clamp(min=0)
