"""Looks at every image, or frame of a video, and annotation of a set before training does."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from queryseg.data.coco_json import CocoFile, find_missing_files, read_coco_json
from queryseg.data.image import BadImageError, read_image, upright_size
from queryseg.data.json_lists import MissingListsError
from queryseg.data.masks import decode
from queryseg.data.problems import Effect, Problem, of_effect
from queryseg.data.video_frames import frame_record
from queryseg.data.video_json import VIDEOS, read_video_json

SMALL_AREA, LARGE_AREA = 32**2, 96**2  # COCO's limits, in pixels
_EXIF_ORIENTATION = 0x0112
_PLAIN_MODES = ("RGB",)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassCount:
    """How often a class occurs."""

    category_id: int
    name: str
    objects: int
    images: int


@dataclass(frozen=True)
class DatasetReport:
    """What a data set holds, and what is wrong with it.

    Attributes:
        json_file: the annotations.
        num_videos: videos in the json; 0 for one of images. Images are their frames then.
        num_images: images in the json.
        num_annotations: annotations (of videos: tracks) in the json, usable or not.
        num_objects: usable annotations (masks of single frames) without crowds.
        num_crowds: usable annotations that mark crowds.
        classes: in the order of the class indices.
        area_counts: objects that are small, medium and large in COCO's sense.
        image_sizes: (height, width) of every image.
        problems: sorted by effect, the worst first.
    """

    json_file: str
    num_videos: int
    num_images: int
    num_annotations: int
    num_objects: int
    num_crowds: int
    classes: tuple[ClassCount, ...]
    area_counts: dict[str, int]
    image_sizes: tuple[tuple[int, int], ...]
    problems: tuple[Problem, ...]

    def with_effect(self, effect: Effect) -> list[Problem]:
        """The problems with this effect."""
        return of_effect(self.problems, effect)


def check_dataset(
    json_file: str | Path, image_root: str | Path, open_images: bool = True
) -> DatasetReport:
    """Check a set in COCO or YouTube-VIS format in full.

    Args:
        json_file: the annotations.
        image_root: the folder that the file names are relative to.
        open_images: decode every image; otherwise only look whether the files exist.

    Raises:
        FileNotFoundError: no such json or folder.
        ValueError: the json is in neither format.
    """
    if not Path(image_root).is_dir():
        raise FileNotFoundError(f"no such image folder: {image_root}")
    coco, num_videos = _read(json_file, image_root)
    missing = find_missing_files(coco.images)
    problems = [*coco.problems, *missing, *_empty_masks(coco), *_remarks_on_classes(coco)]
    if not num_videos:  # of a video, many frames may be empty
        problems += _remarks_on_images(coco)
    if open_images:
        absent = {problem.image_id for problem in missing}
        problems += _image_problems([i for i in coco.images if i["image_id"] not in absent])
    order = list(Effect)
    problems.sort(key=lambda problem: order.index(problem.effect))
    objects = [(i, a) for i in coco.images for a in i["annotations"] if not a["iscrowd"]]
    return DatasetReport(
        json_file=coco.json_file,
        num_videos=num_videos,
        num_images=len(coco.images),
        num_annotations=coco.num_annotations,
        num_objects=len(objects),
        num_crowds=sum(len(i["annotations"]) for i in coco.images) - len(objects),
        classes=_class_counts(coco, objects),
        area_counts=_area_counts(objects),
        image_sizes=tuple((i["height"], i["width"]) for i in coco.images),
        problems=tuple(problems),
    )


def _read(json_file: str | Path, image_root: str | Path) -> tuple[CocoFile, int]:
    """Images, or the frames of videos and how many videos they are."""
    try:
        return read_coco_json(json_file, image_root), 0
    except MissingListsError as error:
        if VIDEOS not in error.present:
            raise
    found = read_video_json(json_file, image_root)
    frames = [
        frame_record(video, frame) for video in found.videos for frame in range(video["length"])
    ]
    coco = CocoFile(
        json_file=found.json_file,
        images=frames,
        categories=found.categories,
        num_annotations=found.num_annotations,
        has_annotations=found.has_annotations,
        problems=found.problems,
    )
    return coco, len(found.videos)


def _class_counts(
    coco: CocoFile, objects: Sequence[tuple[dict[str, Any], dict[str, Any]]]
) -> tuple[ClassCount, ...]:
    count = Counter(annotation["category_id"] for _, annotation in objects)
    pairs = {(annotation["category_id"], image["image_id"]) for image, annotation in objects}
    images = Counter(category for category, _ in pairs)
    return tuple(
        ClassCount(category, name, count[category], images[category])
        for category, name in coco.categories.items()
    )


def _area_counts(objects: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, int]:
    counts = {"small": 0, "medium": 0, "large": 0}
    for image, annotation in objects:
        area = annotation.get("area")
        if area is None:
            area = decode(annotation["segmentation"], image["height"], image["width"]).sum()
        counts["small" if area < SMALL_AREA else "large" if area > LARGE_AREA else "medium"] += 1
    return counts


def _empty_masks(coco: CocoFile) -> Iterator[Problem]:
    for image in coco.images:
        for annotation in image["annotations"]:
            if not isinstance(annotation["segmentation"], list):
                continue  # the pixels of an RLE are counted when it is read
            if not decode(annotation["segmentation"], image["height"], image["width"]).any():
                yield Problem(
                    "empty-mask",
                    Effect.DROPPED,
                    "the polygons cover no pixel",
                    image["image_id"],
                    annotation["id"],
                    image["file_name"],
                )


def _remarks_on_images(coco: CocoFile) -> Iterator[Problem]:
    files = Counter(image["file_name"] for image in coco.images)
    for image in coco.images:
        identity = (image["image_id"], None, image["file_name"])
        crowds = [annotation["iscrowd"] for annotation in image["annotations"]]
        if not crowds:
            yield Problem("no-objects", Effect.HANDLED, "an image without objects", *identity)
        elif all(crowds):
            yield Problem("only-crowds", Effect.HANDLED, "an image with crowds only", *identity)
        if files[image["file_name"]] > 1:
            message = "several image entries have this file"
            yield Problem("file-doubled", Effect.HANDLED, message, *identity)


def _remarks_on_classes(coco: CocoFile) -> Iterator[Problem]:
    used = {a["category_id"] for image in coco.images for a in image["annotations"]}
    for category, name in coco.categories.items():
        if category not in used:
            message = f"class {name!r} (category {category}) has no object"
            yield Problem("class-unused", Effect.HANDLED, message)
    for name, number in Counter(coco.categories.values()).items():
        if number > 1:
            message = f"{number} categories are called {name!r}; they are kept apart by id"
            yield Problem("class-name-doubled", Effect.HANDLED, message)


def _image_problems(images: Sequence[dict[str, Any]]) -> list[Problem]:
    with ThreadPoolExecutor() as pool:
        found = pool.map(_open_image, images)
        progress = tqdm(found, total=len(images), desc="images", unit="img", disable=None)
        return [problem for problems in progress for problem in problems]


def _open_image(image: dict[str, Any]) -> list[Problem]:
    identity = (image["image_id"], None, image["file_name"])
    try:
        read_image(image["file_name"], size_hw=(image["height"], image["width"]))
    except BadImageError as error:
        message = str(error).removeprefix(f"{image['file_name']}: ")
        return [Problem("bad-image", Effect.FATAL, message, *identity)]
    problems = []
    with Image.open(image["file_name"]) as opened:
        mode, orientation = opened.mode, opened.getexif().get(_EXIF_ORIENTATION, 1)
    if mode not in _PLAIN_MODES:
        message = f"colour mode {mode}: converted to 8-bit RGB"
        problems.append(Problem("image-mode", Effect.HANDLED, message, *identity))
    if orientation != 1:
        turned = "not turned, since the annotations fit the pixels as stored"
        if upright_size(image["file_name"]) == (image["height"], image["width"]):
            turned = "turned upright"
        message = f"EXIF orientation {orientation}: {turned}"
        problems.append(Problem("image-exif", Effect.HANDLED, message, *identity))
    return problems
