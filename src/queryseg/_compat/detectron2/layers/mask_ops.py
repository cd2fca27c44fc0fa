"""Move box-sized masks back into the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:  # structures imports layers
    from detectron2.structures import Boxes

PASTE_BYTES = 1 << 30  # memory for the float masks of one chunk on an accelerator


def paste_masks_in_image(
    masks: Tensor, boxes: Boxes | Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Resample each square mask onto the pixels of its box and cut it at a threshold.

    Pixel centres lie at +0.5 and values fade to 0 within half a mask cell outside the box.

    Args:
        masks: (N, M, M) values in [0, 1] (or bool).
        boxes: N xyxy boxes in pixels.
        image_shape: (height, width) of the image.
        threshold: a pixel belongs to the mask where its value is at least this. A negative one
            returns the values, times 255, as uint8.

    Returns:
        (N, height, width) bool; uint8 for no masks or a negative threshold.
    """
    assert masks.shape[-1] == masks.shape[-2], f"masks must be square, got {tuple(masks.shape)}"
    if len(masks) == 0:
        return masks.new_empty((0, *image_shape), dtype=torch.uint8)
    corners = boxes if isinstance(boxes, Tensor) else boxes.tensor
    assert len(corners) == len(masks), f"{len(masks)} masks for {len(corners)} boxes"
    on_cpu = corners.device.type == "cpu"
    height, width = image_shape
    dtype = torch.bool if threshold >= 0 else torch.uint8
    pasted = torch.zeros(len(masks), height, width, dtype=dtype, device=corners.device)
    # A CPU is fastest with one mask at a time, only where its box is.
    per_chunk = 1 if on_cpu else max(1, PASTE_BYTES // (4 * height * width))
    for start in range(0, len(masks), per_chunk):
        chunk = slice(start, start + per_chunk)
        rows, columns = slice(0, height), slice(0, width)
        if on_cpu:
            rows, columns = _pixels_near(corners[start], height, width)
            if rows.start == rows.stop or columns.start == columns.stop:
                continue
        values = _sample(masks[chunk], corners[chunk], rows, columns)
        values = values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)
        pasted[chunk, rows, columns] = values
    return pasted


def _pixels_near(box: Tensor, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the box, one pixel wider on each side, inside the image."""
    low_x, low_y = (box[:2].floor() - 1).clamp(min=0).int().tolist()
    high_x, high_y = (box[2:].ceil() + 1).int().tolist()
    high_x, high_y = min(high_x, width), min(high_y, height)
    return slice(low_y, max(low_y, high_y)), slice(low_x, max(low_x, high_x))


def _sample(masks: Tensor, boxes: Tensor, rows: slice, columns: slice) -> Tensor:
    """Values of (n, M, M) masks at the centres of the given pixels: (n, rows, columns)."""
    x0, y0, x1, y1 = boxes.split(1, dim=1)
    y = torch.arange(rows.start, rows.stop, device=boxes.device, dtype=torch.float32) + 0.5
    x = torch.arange(columns.start, columns.stop, device=boxes.device, dtype=torch.float32) + 0.5
    y = (y - y0) / (y1 - y0) * 2 - 1
    x = (x - x0) / (x1 - x0) * 2 - 1
    size = (len(masks), y.shape[1], x.shape[1])
    grid = torch.stack([x[:, None, :].expand(size), y[:, :, None].expand(size)], dim=3)
    values = masks[:, None] if masks.is_floating_point() else masks[:, None].float()
    return F.grid_sample(values, grid.to(values.dtype), align_corners=False)[:, 0]


def paste_mask_in_image_old(
    mask: Tensor, box: Tensor, img_h: int, img_w: int, threshold: float
) -> Tensor:
    """Paste one mask the way the first Detectron did, with box corners cut to integers.

    Args:
        mask: (M, M) values in [0, 1].
        box: (4,) xyxy box in pixels.
        img_h, img_w: size of the image.
        threshold: values strictly above it are foreground; negative for values times 255.

    Returns:
        (img_h, img_w) uint8.
    """
    x0, y0, x1, y1 = box.int().tolist()
    size = (x1 - x0 + 1, y1 - y0 + 1)
    resized = np.asarray(Image.fromarray(mask.cpu().numpy()).resize(size, Image.BILINEAR))
    values = resized > threshold if threshold >= 0 else resized * 255
    image = torch.zeros(img_h, img_w, dtype=torch.uint8)
    left, right = max(x0, 0), min(x1 + 1, img_w)
    top, bottom = max(y0, 0), min(y1 + 1, img_h)
    visible = values[top - y0 : bottom - y0, left - x0 : right - x0]
    image[top:bottom, left:right] = torch.from_numpy(visible.astype(np.uint8))
    return image


def pad_masks(masks: Tensor, padding: int) -> tuple[Tensor, float]:
    """Surround (B, M, M) masks by `padding` empty cells; also returns new size / old size."""
    size = masks.shape[-1]
    return F.pad(masks, (padding,) * 4), float(size + 2 * padding) / size


def scale_boxes(boxes: Tensor, scale: float) -> Tensor:
    """Scale (B, 4) xyxy boxes about their centres."""
    low, high = boxes[:, :2], boxes[:, 2:]
    half, centre = (high - low) * 0.5 * scale, (high + low) * 0.5
    return torch.cat([centre - half, centre + half], dim=1)
