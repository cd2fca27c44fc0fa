"""Boundary IoU: the overlap of the inner borders of masks (Cheng et al., CVPR 2021)."""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util

DILATION_RATIO = 0.02
"""Width of the border, as a share of the image's diagonal (COCO's; LVIS and Cityscapes differ)."""


def inner_border(mask: np.ndarray, dilation_ratio: float = DILATION_RATIO) -> np.ndarray:
    """The pixels of a mask that are at most a border's width away from what is not mask.

    Outside of the image counts as not mask. The distance is that of a king on a chess board.

    Args:
        mask: (H, W) bool.
        dilation_ratio: width of the border over the diagonal, rounded, at least one pixel.

    Returns:
        (H, W) bool.

    >>> inner_border(np.ones((5, 5), dtype=bool)).sum()
    np.int64(16)
    """
    border = np.zeros_like(mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return border
    width = max(1, round(dilation_ratio * float(np.hypot(*mask.shape))))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # What lies outside the window is not mask, inside the image or not.
    framed = np.pad(mask[window].astype(np.uint8), 1)
    inside = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    border[window] = mask[window] & (inside == 0)
    return border


def inner_border_rle(rle: dict[str, Any], dilation_ratio: float = DILATION_RATIO) -> dict[str, Any]:
    """The inner border of a compressed RLE, as one."""
    border = inner_border(mask_util.decode(rle).astype(bool), dilation_ratio)
    return mask_util.encode(np.asfortranarray(border, dtype=np.uint8))


@lru_cache(maxsize=1)
def boundary_evaluation() -> type:
    """pycocotools' evaluation of masks with the smaller of mask IoU and boundary IoU.

    The smaller of both, since the borders of small objects in large ones may overlap fully. The
    annotations carry their border under "boundary".
    """
    from pycocotools.cocoeval import COCOeval

    class BoundaryEvaluation(COCOeval):
        def computeIoU(self, imgId: int, catId: int) -> Any:
            overlaps = super().computeIoU(imgId, catId)
            if len(overlaps) == 0:
                return overlaps
            truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
            order = np.argsort([-one["score"] for one in found], kind="mergesort")
            best = [found[place]["boundary"] for place in order[: self.params.maxDets[-1]]]
            objects = [place for place, one in enumerate(truth) if not one["iscrowd"]]
            borders = [truth[place]["boundary"] for place in objects]
            if borders:  # crowds keep the overlap of the masks
                alike = mask_util.iou(best, borders, [0] * len(borders))
                overlaps[:, objects] = np.minimum(overlaps[:, objects], alike)
            return overlaps

    return BoundaryEvaluation
