"""Boundary IoU in the matches of Cityscapes' script (Cheng et al., CVPR 2021)."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from queryseg.data.cityscapes import INSTANCES_PER_LABEL, read_instance_ids
from queryseg.evaluation.boundary_iou import inner_border

DILATION_RATIO = 0.005
"""Width of the border over the image's diagonal: 11 pixels of 2048 x 1024; COCO's would be 46."""

Entry = dict[str, Any]
Matches = dict[str, dict[str, dict[str, list[Entry]]]]


def use_boundary_overlaps(matches: Matches, min_pixels: int) -> None:
    """Make the overlaps of the script's matches the smaller of mask IoU and Boundary IoU.

    The script computes an overlap from the pixels of a pair, shared / (truth + prediction -
    shared), and one of the two counts stands in the entry of the pair alone: there the counts of
    the borders are put in. Groups and small objects, which only excuse predictions, keep theirs;
    pairs whose borders do not meet are no pairs.

    Args:
        matches: what `matchGtWithPreds` gives, by annotation file; changed in place.
        min_pixels: of an object that is evaluated.
    """
    for truth_file, sides in matches.items():
        borders = _Borders(Path(truth_file))
        for side, others in (("groundTruth", "matchedPred"), ("prediction", "matchedGt")):
            for own in chain.from_iterable(sides[side].values()):
                pairs = []
                for one in own[others]:
                    truth, found = (own, one) if side == "groundTruth" else (one, own)
                    counts = borders.counts(truth, found)
                    if counts[0]:
                        is_object = _is_object(truth, min_pixels)
                        pairs.append(_pair(one, own, counts, is_object, min_pixels))
                own[others] = pairs


class _Borders:
    """Borders of the objects of an image and of what was found, drawn when asked for."""

    def __init__(self, truth_file: Path) -> None:
        self._ids = read_instance_ids(truth_file)
        self._drawn: dict[int | str, Any] = {}

    def counts(self, truth: Entry, found: Entry) -> tuple[int, int]:
        """Pixels that both borders share, and the sum of the pixels of each."""
        number, file = truth["instID"], found["imgName"]
        if number not in self._drawn:
            self._drawn[number] = _border(self._ids == number)
        if file not in self._drawn:
            with Image.open(file) as image:
                self._drawn[file] = _border(np.asarray(image.convert("L")) != 0)
        pair = [self._drawn[number], self._drawn[file]]
        shared = int(mask_util.area(mask_util.merge(pair, intersect=True)))
        return shared, int(mask_util.area(pair).sum())


def _border(mask: np.ndarray) -> Any:
    border = inner_border(mask, DILATION_RATIO)
    return mask_util.encode(np.asfortranarray(border, dtype=np.uint8))


def _is_object(truth: Entry, min_pixels: int) -> bool:
    return truth["instID"] >= INSTANCES_PER_LABEL and truth["pixelCount"] >= min_pixels


def _pair(
    entry: Entry, partner: Entry, counts: tuple[int, int], is_object: bool, min_pixels: int
) -> Entry:
    """The entry of a pair, with the counts of the borders where these overlap less."""
    shared, both = counts
    pixels = entry["pixelCount"] + partner["pixelCount"] - entry["intersection"]
    if not is_object or shared / (both - shared) >= entry["intersection"] / pixels:
        return entry
    # A common factor changes no quotient, and keeps the entry's count that of a large object.
    factor = partner["pixelCount"] + min_pixels
    rest = factor * both - partner["pixelCount"]
    return {**entry, "intersection": factor * shared, "pixelCount": rest}
