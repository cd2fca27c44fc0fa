"""Reads one annotation of a COCO json: what is kept of it, and what was wrong."""

import math
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import pycocotools.mask as mask_util

from queryseg.data.masks import compressed, rle_fault
from queryseg.data.problems import Effect, Problem

BOX_SLACK = 2.0  # pixels a box may reach beyond the image without being reported
_FLAG_WORDS = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


@dataclass(frozen=True)
class ImageEntry:
    """The image that an annotation belongs to."""

    image_id: int | str
    file_name: str
    height: int
    width: int


class _Unusable(Exception):
    """Carries the kind and the message of what makes an annotation unusable."""


def read_annotation(
    raw: dict[str, Any], image: ImageEntry
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Turn a raw annotation into the fields of a standard dataset dict.

    Args:
        raw: as in the json; `category_id` is passed on as it is.
        image: its image.

    Returns:
        the annotation with `id`, `category_id`, `iscrowd`, `bbox` (x, y, width, height; taken from
        the mask where the stated one is unusable), `segmentation` (polygons or compressed RLE) and
        `area` where stated, or None if it is unusable; and the problems found.
    """
    problems: list[Problem] = []

    def report(kind: str, effect: Effect, message: str) -> None:
        identity = (image.image_id, raw.get("id"), image.file_name)
        problems.append(Problem(kind, effect, message, *identity))

    try:
        segmentation, repairs = _read_segmentation(raw.get("segmentation"), image)
    except _Unusable as reason:
        report(reason.args[0], Effect.DROPPED, reason.args[1])
        return None, problems
    for kind, message in repairs:
        report(kind, Effect.HANDLED, message)

    box, fault = _read_box(raw.get("bbox"), image)
    if fault is not None:
        report(*fault)
    crowd = False
    for key in ("iscrowd", "ignore"):
        flag = as_flag(raw.get(key))
        if flag is None:
            report(
                "flag-values", Effect.HANDLED, f"{key} {raw[key]!r:.40} is not 0 or 1: taken as 0"
            )
        crowd = crowd or bool(flag)
    annotation = {
        "id": raw.get("id"),
        "category_id": raw.get("category_id"),
        "iscrowd": int(crowd),
        "bbox": box if box is not None else _box_of(segmentation, image),
        "segmentation": segmentation,
    }
    area = raw.get("area")
    if _is_finite(area) and area > 0:
        annotation["area"] = float(area)
    return annotation, problems


def as_flag(value: Any) -> bool | None:
    """Whether a flag of a json is set, also where it is written as a word; None if it is neither.

    >>> as_flag(1), as_flag("0"), as_flag(None), as_flag("maybe")
    (True, False, False, None)
    """
    if value is None:
        return False
    if isinstance(value, str):
        return _FLAG_WORDS.get(value.strip().lower())
    return bool(value) if isinstance(value, (bool, int, float)) else None


def _is_finite(value: Any) -> TypeGuard[float]:
    """Whether a value is a number that a float can hold."""
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # JSON sets integers no limit
        return False


def _read_segmentation(
    segmentation: Any, image: ImageEntry
) -> tuple[list[list[float]] | dict[str, Any], list[tuple[str, str]]]:
    if not segmentation:
        raise _Unusable("no-segmentation", "there is no mask (segmentation is missing or empty)")
    if isinstance(segmentation, dict):
        fault = rle_fault(segmentation, image.height, image.width)
        if fault is not None:
            raise _Unusable(*fault)
        return compressed(segmentation), []
    if not isinstance(segmentation, list):
        kind = type(segmentation).__name__
        raise _Unusable("segmentation-type", f"segmentation must be a list or a dict, not {kind}")
    return _read_polygons(segmentation, image)


def _read_polygons(
    polygons: list[Any], image: ImageEntry
) -> tuple[list[list[float]], list[tuple[str, str]]]:
    repairs = []
    if all(isinstance(v, (int, float)) for v in polygons):
        polygons = [polygons]
        repairs.append(("flat-polygon", "one polygon that lacks its outer list: taken as one"))
    kept, faults = [], []
    for polygon in polygons:
        fault = _polygon_fault(polygon, image)
        if fault is None:
            kept.append(polygon)
        else:
            faults.append(fault)
    if not kept:
        raise _Unusable(*faults[0])
    if faults:
        kind, message = faults[0]
        repairs.append((kind, f"{len(faults)} of {len(polygons)} polygons left out: {message}"))
    return kept, repairs


def _polygon_fault(polygon: Any, image: ImageEntry) -> tuple[str, str] | None:
    if not isinstance(polygon, list):
        return "polygon-values", f"a polygon must be a list of numbers, not {polygon!r:.40}"
    if any(isinstance(value, (list, tuple, dict)) for value in polygon):
        message = f"a polygon must be flat numbers x, y, x, y, ..., not {polygon!r:.40}"
        return "polygon-values", message
    if len(polygon) % 2:
        return "polygon-odd", f"a polygon has {len(polygon)} coordinates, an odd number"
    if len(polygon) < 6:
        return "polygon-points", f"a polygon has {len(polygon) // 2} points; it needs at least 3"
    try:
        finite = math.isfinite(math.fsum(polygon))
    except (TypeError, OverflowError):
        finite = False
    if not finite:
        return "polygon-values", "a polygon has coordinates that are not finite numbers"
    x, y = polygon[0::2], polygon[1::2]
    left, right, top, bottom = min(x), max(x), min(y), max(y)
    if right <= left or bottom <= top:
        return "polygon-flat", "a polygon has no area"
    if right <= 0 or bottom <= 0 or left >= image.width or top >= image.height:
        return "outside-image", "a polygon lies outside the image"
    reach = 2 * max(image.width, image.height)
    if min(left, top) < -reach or right > image.width + reach or bottom > image.height + reach:
        return "polygon-far", "a polygon has points far outside the image"
    return None


def _read_box(
    box: Any, image: ImageEntry
) -> tuple[list[float] | None, tuple[str, Effect, str] | None]:
    if box is None or box == []:
        return None, ("box-missing", Effect.HANDLED, "no bbox: taken from the mask")
    valid = isinstance(box, (list, tuple)) and len(box) == 4
    if not valid or not all(map(_is_finite, box)):
        message = f"bbox {box!r:.60} is not four finite numbers: taken from the mask"
        return None, ("box-values", Effect.HANDLED, message)
    x, y, width, height = (float(v) for v in box)
    if width <= 0 or height <= 0:
        return None, ("box-area", Effect.HANDLED, f"bbox {box} has no area: taken from the mask")
    if x >= image.width or y >= image.height or x + width <= 0 or y + height <= 0:
        message = f"bbox {box} lies outside the image: taken from the mask"
        return None, ("box-outside", Effect.HANDLED, message)
    beyond = max(-x, -y, x + width - image.width, y + height - image.height)
    if beyond > BOX_SLACK:
        message = f"bbox {box} reaches {beyond:.1f} pixels beyond the image: clipped"
        return [x, y, width, height], ("box-beyond", Effect.HANDLED, message)
    return [x, y, width, height], None


def _box_of(segmentation: list[list[float]] | dict[str, Any], image: ImageEntry) -> list[float]:
    if isinstance(segmentation, dict):
        return [float(v) for v in mask_util.toBbox(segmentation)]
    points = np.concatenate([np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in segmentation])
    low = np.clip(points.min(axis=0), 0, (image.width, image.height))
    high = np.clip(points.max(axis=0), 0, (image.width, image.height))
    return [*low.tolist(), *(high - low).tolist()]
