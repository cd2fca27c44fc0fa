"""Reads a COCO-format json into standard dataset dicts, and says what was wrong in it."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from queryseg.data.annotation import ImageEntry, read_annotation
from queryseg.data.image import upright_size
from queryseg.data.json_lists import as_id, as_side, read_categories, read_lists
from queryseg.data.problems import CHECK_HINT, Effect, Problem, of_effect, raise_if_fatal, summarise

FEDERATED_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")
"""What an image of LVIS says of classes: seen to be absent; present, and not all are annotated."""

_logger = logging.getLogger(__name__)


@dataclass
class CocoFile:
    """What a COCO json holds.

    Attributes:
        json_file: its path.
        images: one record an image, sorted by id: `file_name` (with the folder), `height`, `width`,
            `image_id`, `annotations` (those that are usable, with the json's category ids), and
            `FEDERATED_KEYS` where the json has them.
        categories: id to name, sorted by id.
        num_annotations: entries in the json, usable or not.
        has_annotations: whether the json has the key at all (test sets lack it).
        problems: everything found.
    """

    json_file: str
    images: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)
    num_annotations: int = 0
    has_annotations: bool = True
    problems: list[Problem] = field(default_factory=list)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The images, as other kinds of sets call theirs."""
        return self.images


def read_coco_json(json_file: str | Path, image_root: str | Path) -> CocoFile:
    """Read a COCO json without stopping at what is wrong inside it.

    Args:
        json_file: its path.
        image_root: the folder that the file names are relative to.

    Raises:
        FileNotFoundError: no such json.
        ValueError: not JSON, or without the lists of the COCO format.
    """
    content = read_lists(json_file, "COCO", ("images", "categories"))
    coco = CocoFile(str(json_file), has_annotations="annotations" in content)
    coco.categories = read_categories(content["categories"], coco.problems)
    records = _read_images(content["images"], str(image_root), coco.problems)
    raw_annotations = content.get("annotations", [])
    coco.num_annotations = len(raw_annotations)
    _attach_annotations(raw_annotations, records, coco)
    coco.images = sorted(records.values(), key=_by_id)
    return coco


@dataclass(frozen=True)
class LoadedSet:
    """A COCO json, ready for training or testing.

    Attributes:
        images: standard dataset dicts; `category_id` counts from 0, as do the classes of
            `FEDERATED_KEYS`; `bbox_mode` is XYWH.
        class_names: in the order of the class indices.
        index_of: category id of the json to class index.
        has_annotations: whether the json has the key at all (test sets lack it).
    """

    images: list[dict[str, Any]]
    class_names: list[str]
    index_of: dict[int, int]
    has_annotations: bool

    @property
    def records(self) -> list[dict[str, Any]]:
        """The images, as other kinds of sets call theirs."""
        return self.images


def load_coco_json(
    json_file: str | Path,
    image_root: str | Path,
    class_names: Sequence[str] | None = None,
    check_files: bool = True,
) -> LoadedSet:
    """Load a COCO json for training or testing.

    Annotations that cannot be used are left out, and one warning says how many of which kind.

    Args:
        json_file: its path.
        image_root: the folder that the file names are relative to.
        class_names: the order of the classes; categories are found in it by name. Without it the
            classes are those of the json, ordered by category id.
        check_files: whether a missing image file is an error.

    Raises:
        FileNotFoundError: no such json.
        ValueError: something that cannot be left out silently: an unknown or doubled category,
            doubled image ids, images without a file, a class that `class_names` lacks.
    """
    coco = read_coco_json(json_file, image_root)
    names = list(class_names) if class_names is not None else list(coco.categories.values())
    return finish_coco(coco, names, None, check_files)


def finish_coco(
    coco: CocoFile,
    class_names: Sequence[str],
    index_of: Mapping[int, int] | None,
    check_files: bool,
) -> LoadedSet:
    """What was read, with classes for categories; see `load_coco_json`.

    Args:
        coco: is changed.
        class_names: the order of the classes.
        index_of: category id to class index; None: categories are found by name.
        check_files: whether a missing image file is an error.
    """
    if check_files:
        coco.problems += find_missing_files(coco.images)
    raise_if_fatal(coco.problems, coco.json_file)
    if index_of is None:
        index_of = map_categories(coco.categories, coco.json_file, class_names)
    for image in coco.images:
        for annotation in image["annotations"]:
            annotation["category_id"] = index_of[annotation["category_id"]]
            annotation["bbox_mode"] = BoxMode.XYWH_ABS
        for key in FEDERATED_KEYS:
            if key in image:
                image[key] = [index_of[one] for one in image[key] if one in index_of]
    _log(coco)
    return LoadedSet(coco.images, list(class_names), dict(index_of), coco.has_annotations)


def map_categories(
    categories: Mapping[int, str], json_file: str, class_names: Sequence[str]
) -> dict[int, int]:
    """Category id of a json to index into `class_names`.

    Raises:
        ValueError: a category has a name that is not in `class_names`, or one that is there twice.
    """
    if list(categories.values()) == list(class_names):
        return {category: index for index, category in enumerate(categories)}
    unknown = [name for name in categories.values() if name not in class_names]
    if unknown:
        raise ValueError(
            f"{json_file} has classes that the training set lacks: {unknown}. Training set: "
            f"{list(class_names)}. Make the `categories` of both files the same."
        )
    doubled = [name for name, n in Counter(class_names).items() if n > 1]
    if doubled:
        raise ValueError(
            f"class names {doubled} occur more than once and the class lists of the two sets "
            f"differ, so {json_file} cannot be matched by name: rename them."
        )
    position = {name: index for index, name in enumerate(class_names)}
    return {category: position[name] for category, name in categories.items()}


def find_missing_files(images: Sequence[dict[str, Any]]) -> list[Problem]:
    """One fatal problem for each image whose file does not exist; lists every folder once."""
    listed: dict[str, set[str]] = {}
    problems = []
    for image in images:
        folder, name = os.path.split(image["file_name"])
        if folder not in listed:
            listed[folder] = (
                set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
            )
        if name not in listed[folder]:
            message = "no such file. Check the image folder, or take the image out of the json"
            problem = Problem("missing-file", Effect.FATAL, message, image["image_id"])
            problems.append(_with_file(problem, image["file_name"]))
    return problems


def _with_file(problem: Problem, file_name: str) -> Problem:
    return Problem(problem.kind, problem.effect, problem.message, problem.image_id, None, file_name)


def _read_images(
    raw: list[Any], image_root: str, problems: list[Problem]
) -> dict[int | str, dict[str, Any]]:
    records: dict[int | str, dict[str, Any]] = {}
    for entry in raw:
        image_id, name = as_id(entry.get("id")), entry.get("file_name")
        if image_id is None or not isinstance(name, str) or not name:
            message = f"image entry {entry!r:.80} needs an id and a file_name"
            problems.append(Problem("image-fields", Effect.FATAL, message))
            continue
        if image_id in records:
            other = records[image_id]["file_name"]
            message = f"the image id occurs twice (also for {other}): give each image its own"
            problems.append(Problem("image-doubled", Effect.FATAL, message, image_id, None, name))
            continue
        file_name = os.path.join(image_root, name)
        size = _image_size(entry, image_id, file_name, problems)
        if size is not None:
            records[image_id] = {
                "file_name": file_name,
                "height": size[0],
                "width": size[1],
                "image_id": image_id,
                "annotations": [],
                **{key: entry[key] for key in FEDERATED_KEYS if isinstance(entry.get(key), list)},
            }
    return records


def _image_size(
    entry: dict[str, Any], image_id: int | str, file_name: str, problems: list[Problem]
) -> tuple[int, int] | None:
    height, width = as_side(entry.get("height")), as_side(entry.get("width"))
    if height is not None and width is not None:
        return height, width
    try:
        size = upright_size(file_name)
    except OSError as error:
        message = f"height and width are missing and the file cannot be read ({error})"
        problems.append(Problem("image-size", Effect.FATAL, message, image_id, None, file_name))
        return None
    message = "height and width are missing: read from the file"
    problems.append(Problem("image-size", Effect.HANDLED, message, image_id, None, file_name))
    return size


def _attach_annotations(
    raw_annotations: list[Any], records: dict[int | str, dict[str, Any]], coco: CocoFile
) -> None:
    seen: set[int | str] = set()
    for raw in raw_annotations:
        image_id, own_id = as_id(raw.get("image_id")), as_id(raw.get("id"))
        record = records.get(image_id) if image_id is not None else None
        if image_id is None or record is None:
            message = f"image_id {raw.get('image_id')!r} is not in the list images"
            coco.problems.append(
                Problem("unknown-image", Effect.DROPPED, message, annotation_id=own_id)
            )
            continue
        image = ImageEntry(image_id, record["file_name"], record["height"], record["width"])
        identity = (image_id, own_id, image.file_name)
        if own_id is not None:
            if own_id in seen:
                message = "the annotation id occurs twice; ids are not used"
                problem = Problem("annotation-doubled", Effect.HANDLED, message, *identity)
                coco.problems.append(problem)
            seen.add(own_id)
        category = as_id(raw.get("category_id"))
        if category not in coco.categories:
            message = (
                f"category_id {raw.get('category_id')!r} is not in the list categories: add the "
                "category or remove the annotation"
            )
            coco.problems.append(Problem("unknown-category", Effect.FATAL, message, *identity))
            continue
        annotation, problems = read_annotation(
            {**raw, "category_id": category, "id": own_id}, image
        )
        coco.problems += problems
        if annotation is not None:
            record["annotations"].append(annotation)


def _by_id(image: dict[str, Any]) -> tuple[bool, Any]:
    return isinstance(image["image_id"], str), image["image_id"]


def _log(coco: CocoFile) -> None:
    kept = sum(len(image["annotations"]) for image in coco.images)
    _logger.info(
        "%s: %d images, %d objects, %d classes",
        coco.json_file,
        len(coco.images),
        kept,
        len(coco.categories),
    )
    dropped = of_effect(coco.problems, Effect.DROPPED)
    if dropped:
        _logger.warning(
            "%s: %d of %d annotations cannot be used and are left out: %s. %s.",
            coco.json_file,
            len(dropped),
            coco.num_annotations,
            summarise(dropped),
            CHECK_HINT,
        )
    handled = of_effect(coco.problems, Effect.HANDLED)
    if handled:
        _logger.info("%s: handled while loading: %s", coco.json_file, summarise(handled))
