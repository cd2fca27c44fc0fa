"""Reads the instance annotations of Cityscapes, in the folders of its download.

`gtFine/<split>/<city>/*_gtFine_instanceIds.png` holds in each pixel a label, or for a single object
1000 times its label plus a number. A pixel with the bare label of a class with instances belongs to
a group that nobody took apart: a crowd.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode
from PIL import Image

from queryseg.data.coco_json import LoadedSet

LABELS = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""The classes with instances that are evaluated, and their labels in the files."""

INSTANCES_PER_LABEL = 1000
IMAGE_ENDING = "_leftImg8bit.png"
TRUTH_ENDING = "_gtFine_instanceIds.png"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CityscapesFile:
    """One image and its annotations.

    Attributes:
        image_id: "<city>_<sequence>_<frame>", the beginning of both file names.
        image: the picture.
        truth: instance ids; absent in the test split.
    """

    image_id: str
    image: Path
    truth: Path


def find_cityscapes_files(truth_root: str | Path, image_root: str | Path) -> list[CityscapesFile]:
    """Images of a split, by city and name.

    Args:
        truth_root: `gtFine/<split>`.
        image_root: `leftImg8bit/<split>`.

    Raises:
        FileNotFoundError: there is no image.
    """
    images = sorted(Path(image_root).glob(f"*/*{IMAGE_ENDING}"))
    if not images:
        raise FileNotFoundError(
            f"no image below {image_root}: expected <city>/<name>{IMAGE_ENDING}, as in Cityscapes"
        )
    files = []
    for image in images:
        image_id = image.name.removesuffix(IMAGE_ENDING)
        truth = Path(truth_root) / image.parent.name / f"{image_id}{TRUTH_ENDING}"
        files.append(CityscapesFile(image_id, image, truth))
    return files


def load_cityscapes(
    truth_root: str | Path, image_root: str | Path, class_names: Sequence[str] | None = None
) -> LoadedSet:
    """Load a split as standard dataset dicts with masks as compressed RLE.

    Args:
        truth_root: `gtFine/<split>`.
        image_root: `leftImg8bit/<split>`.
        class_names: the order of the classes; by default that of `LABELS`.

    Raises:
        FileNotFoundError: there is no image.
        ValueError: an unknown class name, or annotation files lack for some images only.
    """
    names = list(LABELS) if class_names is None else list(class_names)
    if unknown := [name for name in names if name not in LABELS]:
        raise ValueError(f"Cityscapes has no instances of {unknown}; it has {list(LABELS)}")
    index_of = {LABELS[name]: index for index, name in enumerate(names)}
    files = find_cityscapes_files(truth_root, image_root)
    absent = [file for file in files if not file.truth.is_file()]
    if absent and len(absent) < len(files):
        raise ValueError(
            f"image {absent[0].image_id}: no such annotation file {absent[0].truth} "
            f"({len(absent)} of {len(files)} lack): download gtFine again"
        )
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(_record, files, [index_of] * len(files)))
    objects = sum(len(image["annotations"]) for image in images)
    _logger.info("%s: %d images, %d objects", image_root, len(images), objects)
    return LoadedSet(images, names, index_of, has_annotations=not absent)


def _record(file: CityscapesFile, index_of: dict[int, int]) -> dict[str, Any]:
    with Image.open(file.image) as image:
        width, height = image.size
    annotations = []
    if file.truth.is_file():
        ids = read_instance_ids(file.truth)
        if ids.shape != (height, width):
            raise ValueError(
                f"image {file.image_id}: {file.image} is {width} x {height} pixels but "
                f"{file.truth} {ids.shape[1]} x {ids.shape[0]}: download both again"
            )
        annotations = _annotations(ids, index_of)
    return {
        "file_name": str(file.image),
        "image_id": file.image_id,
        "height": height,
        "width": width,
        "annotations": annotations,
    }


def read_instance_ids(truth: Path) -> np.ndarray:
    """(H, W) int64 of an `instanceIds` file."""
    with Image.open(truth) as image:
        return np.asarray(image).astype(np.int64)


def _annotations(ids: np.ndarray, index_of: dict[int, int]) -> list[dict[str, Any]]:
    annotations = []
    present = np.flatnonzero(np.bincount(np.maximum(ids, 0).ravel()))
    for instance_id in present.tolist():
        is_group = instance_id < INSTANCES_PER_LABEL
        label = instance_id if is_group else instance_id // INSTANCES_PER_LABEL
        if label not in index_of:
            continue
        rle = mask_util.encode(np.asfortranarray(ids == instance_id, dtype=np.uint8))
        annotations.append(
            {
                "id": instance_id,
                "category_id": index_of[label],
                "iscrowd": int(is_group),
                "bbox": mask_util.toBbox(rle).tolist(),
                "bbox_mode": BoxMode.XYWH_ABS,
                "area": float(mask_util.area(rle)),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            }
        )
    return annotations
