"""Segmentations in the three COCO notations: what they are, whether they are sound, their pixels.

The notations are polygons (`[[x0, y0, x1, y1, ...], ...]`), uncompressed RLE (`counts` is a list)
and compressed RLE (`counts` is a string). A boolean array (H, W) is taken as a fourth.
"""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util

Segmentation = list[Any] | dict[str, Any] | np.ndarray


def rle_runs(counts: str | bytes) -> np.ndarray:
    """The run lengths that a compressed RLE string stands for, (R,) int64.

    Every character carries five bits and a continuation flag; from the fourth run on a value is the
    difference to the run two places before.

    Raises:
        ValueError: the string is not one that the COCO encoder writes.
    """
    raw = counts.encode("utf-8") if isinstance(counts, str) else counts
    chars = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - 48
    if chars.size == 0 or chars.min() < 0 or chars.max() > 63 or chars[-1] & 32:
        raise ValueError("not a compressed RLE string")
    last = np.flatnonzero(chars & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(chars.size) - np.repeat(first, last - first + 1)
    if place.max() > 11:
        raise ValueError("a run length does not fit 64 bits")
    values = np.add.reduceat((chars & 31) << (5 * place), first)
    negative = chars[last] & 16 != 0
    values = values - (negative.astype(np.int64) << (5 * (place[last] + 1)))
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def rle_fault(segmentation: dict[str, Any], height: int, width: int) -> tuple[str, str] | None:
    """Why an RLE cannot be the mask of an (height, width) image: (kind, message), or None."""
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        message = f"RLE size {size} differs from the image's [height, width] [{height}, {width}]"
        return "rle-size", message
    if not isinstance(counts, (str, bytes, list)):
        return "rle-counts", f"RLE counts must be a string or a list, not {type(counts).__name__}"
    try:
        runs = np.array(counts, dtype=np.int64) if isinstance(counts, list) else rle_runs(counts)
    except (ValueError, TypeError, OverflowError) as error:
        return "rle-counts", f"RLE counts cannot be read ({error})"
    pixels = height * width
    # Every run is looked at before their sum, which wraps around where they are huge.
    if runs.ndim != 1 or ((runs < 0) | (runs > pixels)).any() or runs.sum() != pixels:
        return "rle-counts", f"RLE runs do not add up to {height} x {width} pixels"
    if runs[1::2].sum() == 0:
        return "empty-mask", "the mask has no pixel"
    return None


def compressed(segmentation: dict[str, Any]) -> dict[str, Any]:
    """The same RLE with `counts` as a string."""
    if isinstance(segmentation["counts"], list):
        rle = mask_util.frPyObjects(segmentation, *segmentation["size"])
        return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
    return segmentation


def decode(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """The pixels of a segmentation.

    Args:
        segmentation: in any of the notations. Polygons may reach beyond the frame.
        height: of the frame.
        width: of the frame.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: an RLE or array of another size, or an unknown notation.
    """
    if isinstance(segmentation, np.ndarray):
        mask = segmentation
    elif isinstance(segmentation, dict):
        mask = mask_util.decode(compressed(segmentation))
    elif isinstance(segmentation, list):
        polygons = [np.asarray(p, dtype=np.float64).reshape(-1) for p in segmentation]
        polygons = [p for p in polygons if p.size >= 6]
        if not polygons:
            return np.zeros((height, width), dtype=bool)
        mask = mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygons, height, width)))
    else:
        raise ValueError(f"unknown notation of a segmentation: {type(segmentation).__name__}")
    if mask.shape != (height, width):
        raise ValueError(f"mask of size {mask.shape} for an image of size {(height, width)}")
    return mask.astype(bool)


def decode_transformed(
    segmentation: Segmentation, transforms: Any, before: tuple[int, int], after: tuple[int, int]
) -> np.ndarray:
    """The pixels of a segmentation after a geometric transform.

    Polygons are moved point by point and drawn once, in the final frame; this needs no clipping,
    since drawing clips. RLE and arrays are drawn first and moved as pixels.

    Args:
        segmentation: in any of the notations.
        transforms: a Detectron2 `Transform` or `TransformList`.
        before: (H, W) of the image as stored.
        after: (H, W) of the transformed image.

    Returns:
        `after` bool.
    """
    moved = moved_polygons(segmentation, transforms)
    if moved is not None:
        return decode(moved, *after)
    pixels = decode(segmentation, *before).astype(np.uint8)
    # Padding may mark what lies outside with 255: only 1 is object.
    return np.asarray(transforms.apply_segmentation(pixels)) == 1


def moved_polygons(segmentation: Segmentation, transforms: Any) -> list[np.ndarray] | None:
    """The polygons of a segmentation after a geometric transform; None if it has none.

    Args:
        segmentation: in any of the notations.
        transforms: a Detectron2 `Transform` or `TransformList`.

    Returns:
        (2 k,) float64 x0, y0, x1, y1, ... of each polygon.
    """
    if not isinstance(segmentation, list):
        return None
    points = [np.array(p, dtype=np.float64).reshape(-1, 2) for p in segmentation]
    return [np.asarray(transforms.apply_coords(p)).reshape(-1) for p in points]
