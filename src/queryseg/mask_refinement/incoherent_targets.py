"""Ground truth of incoherent regions and of outlines (section 3.1, equation 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

PIXELS_AT_ONCE = 2**25
"""How many pixels of bitmaps are worked on together; bounds the memory."""

Size = tuple[int, int]


def lossy_pixels(bitmaps: Tensor, *, signed: bool = False, certain: float = 0.01) -> Tensor:
    """What of masks gets lost when they are halved and doubled bilinearly, as in the release.

    Args:
        bitmaps: (M, H, W) bool.
        signed: keep the sign of the loss, as the code had it that the released COCO weights were
            trained with; then only losses inside the mask reach `certain`.
        certain: a loss from here on counts as 1; smaller ones are kept as they are.

    Returns:
        (M, H // 2, W // 2) float32.

    >>> int(lossy_pixels(torch.eye(4, dtype=torch.bool)[None]).sum())
    4
    """
    height, width = bitmaps.shape[-2:]
    half = (height // 2, width // 2)
    rows = max(1, PIXELS_AT_ONCE // max(height * width, 1))
    parts = []
    for part in bitmaps.split(rows):
        whole = part.unsqueeze(1).float()
        loss = whole - _resize(_resize(whole, half), (height, width))
        shrunk = _resize(loss if signed else loss.abs(), half)
        parts.append(shrunk.masked_fill(shrunk >= certain, 1.0).squeeze(1))
    return torch.cat(parts) if parts else bitmaps.new_zeros(0, *half, dtype=torch.float32)


def lossy_cells(
    lossy: Tensor, boxes_xyxy_abs: Tensor, index: Tensor, size: int, threshold: float = 0.05
) -> Tensor:
    """The cells of boxes that hold lossy pixels.

    Args:
        lossy: (M, H // 2, W // 2) of `lossy_pixels`.
        boxes_xyxy_abs: (N, 4) on the full-size image.
        index: (N,) int64, the object of each box.
        size: rows of the grid over a box.
        threshold: share from which on a cell is incoherent.

    Returns:
        (N, 1, size, size) bool.
    """
    rois = torch.cat([index.to(lossy).unsqueeze(1), boxes_xyxy_abs.to(lossy) / 2], 1)
    return roi_align(lossy.unsqueeze(1), rois, size, aligned=True) >= threshold


def incoherent_region(masks: Tensor) -> Tensor:
    """Equation 1: 2x2 cells in which a mask differs from its nearest-neighbour reconstruction.

    Args:
        masks: (N, 1, H, W) bool at the next finer scale.

    Returns:
        (N, 1, H // 2, W // 2) bool.

    >>> incoherent_region(torch.tensor([[[[True, True, True, False], [True, True, True, True]]]]))
    tensor([[[[False,  True]]]])
    """
    height, width = masks.shape[-2:]
    kept = masks[..., ::2, ::2]
    again = kept.repeat_interleave(2, 2)[..., :height, :]
    again = again.repeat_interleave(2, 3)[..., :width]
    return F.max_pool2d((again ^ masks).float(), 2) > 0


def incoherent_tree(
    finer_masks: Sequence[Tensor], jitter: int = 0, draw: torch.Generator | None = None
) -> list[Tensor]:
    """Equation 1 on every level, each level inside the one before.

    The paper adds jitter along the border of the regions and does not say how; here each box's
    regions are joined with themselves moved by a random number of cells, which adds to the border
    and keeps what there was.

    Args:
        finer_masks: (N, 1, 2 size, 2 size) bool, twice as fine as each level, coarse to fine.
        jitter: most cells a region is moved by.
        draw: where random numbers come from, by default torch's own generator.

    Returns:
        (N, 1, size, size) bool, one for each level.
    """
    levels: list[Tensor] = []
    for masks in finer_masks:
        region = incoherent_region(masks)
        if jitter:
            region = region | _moved(region, jitter, draw)
        if levels:
            times = region.shape[-1] // levels[-1].shape[-1]
            parents = levels[-1].repeat_interleave(times, 2).repeat_interleave(times, 3)
            region = region & parents
        levels.append(region)
    return levels


def outline_cells(masks: Tensor) -> Tensor:
    """Cells that a mask or its complement loses to their neighbours above, below and beside.

    What a dilation with a cross adds and an erosion takes away; beyond the frame neither looks.

    Args:
        masks: (N, 1, h, w) bool.

    Returns:
        (N, 1, h, w) bool.

    >>> outline_cells(torch.tensor([[[[False, False, True, True]]]])).int().tolist()
    [[[[0, 1, 1, 0]]]]
    """
    inside = masks.float()
    return _cross_max(inside) != -_cross_max(-inside)


def _cross_max(values: Tensor) -> Tensor:
    """Largest value among a cell and its four neighbours; cells outside do not count."""
    rows = F.max_pool2d(values, (3, 1), stride=1, padding=(1, 0))
    columns = F.max_pool2d(values, (1, 3), stride=1, padding=(0, 1))
    return torch.maximum(rows, columns)


def _moved(region: Tensor, most: int, draw: torch.Generator | None) -> Tensor:
    """Each map moved by its own random number of cells; what comes in is empty."""
    count, _, height, width = region.shape
    steps = torch.randint(-most, most + 1, (2, count, 1), generator=draw).to(region.device)
    y = torch.arange(height, device=region.device) + steps[0]
    x = torch.arange(width, device=region.device) + steps[1]
    known = ((y >= 0) & (y < height)).unsqueeze(2) & ((x >= 0) & (x < width)).unsqueeze(1)
    box = torch.arange(count, device=region.device).view(-1, 1, 1)
    y, x = y.clamp(0, height - 1).unsqueeze(2), x.clamp(0, width - 1).unsqueeze(1)
    return (region[box, 0, y, x] & known).unsqueeze(1)


def _resize(maps: Tensor, size: Size) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
