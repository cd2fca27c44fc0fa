"""Data sets by name: registered when first asked for, never at import time."""

import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from queryseg.data.cityscapes import load_cityscapes
from queryseg.data.coco_json import (
    CocoFile,
    LoadedSet,
    load_coco_json,
    map_categories,
    read_coco_json,
)
from queryseg.data.cocofied_lvis import load_cocofied_lvis
from queryseg.data.known_datasets import DATASETS_ROOT_VARIABLE, KNOWN_DATASETS, Kind
from queryseg.data.problems import raise_if_fatal
from queryseg.data.video_json import LoadedVideos, VideoFile, load_video_json, read_video_json

LOADERS: dict[Kind, Callable[..., LoadedSet | LoadedVideos]] = {
    Kind.COCO: load_coco_json,
    Kind.COCOFIED_LVIS: load_cocofied_lvis,
    Kind.VIDEO: load_video_json,
    Kind.CITYSCAPES: load_cityscapes,
}
READERS: dict[Kind, Callable[..., CocoFile | VideoFile]] = {
    Kind.COCO: read_coco_json,
    Kind.VIDEO: read_video_json,
}
OWN_PREFIX = "own_"
"""How the names of sets begin that `register_own_data` made."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnData:
    """A user's registered train and validation sets.

    Attributes:
        train_name: the name to put into `dataloader.train`.
        val_name: the name to put into `dataloader.test` and the evaluator.
        class_names: of the training set, in the order of the class indices.
        kind: what both are: images in COCO format, or videos in YouTube-VIS format.
    """

    train_name: str
    val_name: str
    class_names: tuple[str, ...]
    kind: Kind = Kind.COCO


def datasets_root() -> str:
    """The folder that holds the known data sets: `$DETECTRON2_DATASETS`, or `datasets`."""
    return os.path.expanduser(os.environ.get(DATASETS_ROOT_VARIABLE, "datasets"))


def register_coco_json(
    name: str,
    json_file: str | Path,
    image_root: str | Path,
    class_names: Sequence[str] | None = None,
) -> None:
    """Register a COCO-format set under `name`; nothing is read before it is asked for.

    Registering the same files again does nothing.

    Args:
        name: for configs, `get_dataset_dicts` and the evaluator.
        json_file: annotations.
        image_root: the folder that the file names are relative to.
        class_names: the order of the classes, if it is not that of the category ids.

    Raises:
        ValueError: the name is taken by another set.
    """
    _register(name, json_file, image_root, class_names, Kind.COCO)


def register_cityscapes(name: str, truth_root: str | Path, image_root: str | Path) -> None:
    """Register a set in Cityscapes' folders, `gtFine/<split>` and `leftImg8bit/<split>`."""
    _register(name, truth_root, image_root, None, Kind.CITYSCAPES)


def register_video_json(
    name: str,
    json_file: str | Path,
    image_root: str | Path,
    class_names: Sequence[str] | None = None,
) -> None:
    """Register a set in YouTube-VIS format under `name`, in the way of `register_coco_json`."""
    _register(name, json_file, image_root, class_names, Kind.VIDEO)


def _register(
    name: str,
    json_file: str | Path,
    image_root: str | Path,
    class_names: Sequence[str] | None,
    kind: Kind,
) -> None:
    json_file, image_root = str(json_file), str(image_root)
    metadata = MetadataCatalog.get(name)
    if name in DatasetCatalog:
        if (metadata.get("json_file"), metadata.get("image_root")) != (json_file, image_root):
            raise ValueError(
                f"a data set named {name!r} is registered already, with the annotations "
                f"{metadata.get('json_file')}: choose another name for {json_file}"
            )
        return
    DatasetCatalog.register(name, partial(_load_registered, name, class_names, kind))
    metadata.set(json_file=json_file, image_root=image_root, evaluator_type=kind.value)
    if class_names is not None:
        metadata.set(thing_classes=list(class_names))


def ensure_registered(name: str) -> None:
    """Register a known set (see `KNOWN_DATASETS`) if it is not there yet.

    Raises:
        ValueError: the name is neither registered nor known.
    """
    if name in DatasetCatalog:
        return
    if name not in KNOWN_DATASETS:
        candidates = sorted({*DatasetCatalog.keys(), *KNOWN_DATASETS})
        if name.startswith(OWN_PREFIX):
            raise ValueError(
                f"data set {name!r} was given by the flags of an earlier run: give --train-json, "
                "--train-images, --val-json and --val-images again"
            )
        close = get_close_matches(name, candidates)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"no data set named {name!r}.{hint} Known are {sorted(KNOWN_DATASETS)}. Register your "
            "own with queryseg.data.registration.register_coco_json, or train on it with "
            "train_net.py --train-json FILE --train-images FOLDER --val-json FILE --val-images "
            "FOLDER."
        )
    known, root = KNOWN_DATASETS[name], datasets_root()
    _register(
        name,
        os.path.join(root, known.json_file),
        os.path.join(root, known.image_root),
        known.class_names,
        known.kind,
    )


def get_dataset_dicts(
    names: str | Sequence[str], filter_empty: bool = True
) -> list[dict[str, Any]]:
    """Load one or several data sets as a list of standard dataset dicts, one an image or a video.

    Args:
        names: registered or known data sets, with the same classes.
        filter_empty: leave out images (videos) without an object (crowds do not count). Set it to
            False for testing.

    Raises:
        ValueError: an unknown name, sets with different classes, or nothing left to train on.
        FileNotFoundError: the files of a known set are not there; the message says how to get them.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("get_dataset_dicts needs at least one data set name")
    images: list[dict[str, Any]] = []
    for name in names:
        ensure_registered(name)
        images += _load_known(name) if name in KNOWN_DATASETS else DatasetCatalog.get(name)
    _check_same_classes(names)
    if filter_empty:
        with_objects = [image for image in images if _has_object(image)]
        if len(with_objects) < len(images):
            _logger.info(
                "%s: %d without objects left out, %d kept",
                ", ".join(names),
                len(images) - len(with_objects),
                len(with_objects),
            )
        images = with_objects
    if not images:
        files = ", ".join(
            f"{name} ({MetadataCatalog.get(name).get('json_file')})" for name in names
        )
        lack = "image with a usable object to train on" if filter_empty else "image to evaluate on"
        raise ValueError(f"{files}: there is no {lack}")
    return images


def register_own_data(
    train_json: str | Path,
    train_images: str | Path,
    val_json: str | Path,
    val_images: str | Path,
    kind: Kind = Kind.COCO,
) -> OwnData:
    """Register a user's train and validation sets, and compare their classes.

    Names come from the file names and a hash of the paths: unique, and the same in every process.
    The classes of the training set decide; those of the validation set are found by name, so its
    category ids may differ and it may lack classes.

    Args:
        train_json: annotations, in the format of `kind`.
        train_images: the folder that their file names are relative to.
        val_json: likewise.
        val_images: likewise.
        kind: images in COCO format, or videos in YouTube-VIS format.

    Raises:
        FileNotFoundError: a json or an image folder does not exist.
        ValueError: a json is not in the format, or the validation set has a class that the
            training set lacks.
    """
    for folder in (train_images, val_images):
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"no such image folder: {folder}")
    train = _read_own(train_json, train_images, kind)
    if not any(_has_object(record) for record in train.records):
        unit = "video" if kind is Kind.VIDEO else "image"
        raise ValueError(f"{train_json}: no {unit} has a usable object to train on")
    class_names = tuple(train.categories.values())
    val = _read_own(val_json, val_images, kind)
    map_categories(val.categories, val.json_file, class_names)
    absent = [name for name in class_names if name not in val.categories.values()]
    if absent:
        _logger.warning("%s lacks the classes %s: they cannot be evaluated", val_json, absent)
    names = []
    for role, json_file, images in (
        ("train", train_json, train_images),
        ("val", val_json, val_images),
    ):
        names.append(_own_name(role, json_file, images))
        _register(names[-1], _absolute(json_file), _absolute(images), class_names, kind)
    return OwnData(names[0], names[1], class_names, kind)


def _read_own(json_file: str | Path, images: str | Path, kind: Kind) -> CocoFile | VideoFile:
    found = READERS[kind](json_file, images)
    raise_if_fatal(found.problems, found.json_file)
    return found


def _own_name(role: str, json_file: str | Path, images: str | Path) -> str:
    paths = f"{_absolute(json_file)}\n{_absolute(images)}"
    digest = hashlib.sha256(paths.encode("utf-8")).hexdigest()[:8]
    return f"{OWN_PREFIX}{role}_{Path(json_file).stem}_{digest}"


def _absolute(path: str | Path) -> str:
    return str(Path(path).resolve())


def _load_registered(
    name: str, class_names: Sequence[str] | None, kind: Kind
) -> list[dict[str, Any]]:
    metadata = MetadataCatalog.get(name)
    loaded = LOADERS[kind](metadata.json_file, metadata.image_root, class_names)
    _publish(name, loaded.class_names, loaded.index_of)
    return loaded.records


def _publish(name: str, class_names: list[str], index_of: dict[int, int]) -> None:
    metadata = MetadataCatalog.get(name)
    known_names = metadata.get("thing_classes")
    known_index = metadata.get("thing_dataset_id_to_contiguous_id")
    if known_names is None:
        metadata.set(thing_classes=class_names)
    elif list(known_names) != class_names:
        raise ValueError(
            f"{metadata.json_file} has the classes {class_names}, but {name!r} is known in this "
            f"process with {list(known_names)}: restart, or register it under another name"
        )
    if known_index is None:
        metadata.set(thing_dataset_id_to_contiguous_id=index_of)
    elif not index_of.items() <= dict(known_index).items():
        raise ValueError(
            f"{metadata.json_file} numbers its categories unlike {name!r} in this process: "
            "restart, or register it under another name"
        )


def _load_known(name: str) -> list[dict[str, Any]]:
    known = KNOWN_DATASETS[name]
    json_file = MetadataCatalog.get(name).json_file
    if not Path(json_file).exists():
        root = json_file.removesuffix(known.json_file).rstrip("/\\") or "."
        raise FileNotFoundError(
            f"data set {name!r}: no such file or folder {json_file}. To get it, "
            f"{known.cure.format(root=root)}."
        )
    # Detectron2 registers COCO with its class names: a json with fewer of them is matched by name.
    return _load_registered(
        name, known.class_names or MetadataCatalog.get(name).get("thing_classes"), known.kind
    )


def _has_object(record: dict[str, Any]) -> bool:
    annotations = record.get("annotations", ())
    if "file_names" in record:  # a video, with one list a frame
        annotations = itertools.chain.from_iterable(annotations)
    return any(not annotation.get("iscrowd", 0) for annotation in annotations)


def _check_same_classes(names: Sequence[str]) -> None:
    first = MetadataCatalog.get(names[0]).get("thing_classes")
    for name in names[1:]:
        other = MetadataCatalog.get(name).get("thing_classes")
        if other != first:
            raise ValueError(
                f"data sets {names[0]!r} and {name!r} have different classes: {first} and {other}"
            )
