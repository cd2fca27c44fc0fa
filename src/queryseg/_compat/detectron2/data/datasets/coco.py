"""Instance annotations in COCO's json format: read, write, register."""

import contextlib
import datetime
import io
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
from fvcore.common.timer import Timer
from iopath.common.file_io import file_lock
from pycocotools.coco import COCO

from detectron2.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, PolygonMasks
from detectron2.utils.file_io import PathManager

KEYPOINT_OFFSET = 0.5  # COCO's keypoints are pixel indices, Detectron2's are coordinates
SLOW_LOAD_SECONDS = 1

_logger = logging.getLogger(__name__)


def register_coco_instances(
    name: str,
    metadata: Mapping[str, Any],
    json_file: str | os.PathLike,
    image_root: str | os.PathLike,
) -> None:
    """Make a data set in COCO format known by name; its files are read when it is asked for.

    Args:
        name: the name.
        metadata: what is known about it beforehand, may be empty.
        json_file: the annotations.
        image_root: the folder of the images.
    """
    assert isinstance(name, str), name
    assert isinstance(json_file, str | os.PathLike), json_file
    assert isinstance(image_root, str | os.PathLike), image_root
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, lambda: load_coco_json(json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="coco", **metadata
    )


def load_coco_json(
    json_file: str | os.PathLike,
    image_root: str | os.PathLike,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Read annotations in COCO format; images are not opened.

    Args:
        json_file: the annotations.
        image_root: the folder of the images.
        dataset_name: if given, the category ids become 0, 1, 2, ... in the order of the ids, and
            the metadata of this name gets `thing_classes` and `thing_dataset_id_to_contiguous_id`.
        extra_annotation_keys: keys of an annotation to keep besides the usual ones.

    Returns:
        A dict for each image, by ascending id, with "file_name", "height", "width", "image_id" and
        "annotations". Polygons of less than three points are dropped, and annotations that have no
        other polygon; run lengths are compressed.

    Raises:
        ValueError: an annotation with an empty box.
        KeyError: an annotation whose category is not in the file.
    """
    coco = _open_coco(PathManager.get_local_path(os.fspath(json_file)))
    contiguous_ids = None if dataset_name is None else _categories_to_metadata(coco, dataset_name)
    image_ids = sorted(coco.imgs)
    _check_annotations(coco, image_ids, str(json_file))
    _logger.info(f"Read {len(image_ids)} images of {json_file}")

    keys = ["iscrowd", "bbox", "keypoints", "category_id", *(extra_annotation_keys or [])]
    records, num_without_polygon = [], 0
    for image in coco.loadImgs(image_ids):
        parsed = [_read_annotation(a, keys, contiguous_ids) for a in coco.imgToAnns[image["id"]]]
        kept = [annotation for annotation in parsed if annotation is not None]
        num_without_polygon += len(parsed) - len(kept)
        records.append(
            {
                "file_name": os.path.join(image_root, image["file_name"]),
                "height": image["height"],
                "width": image["width"],
                "image_id": image["id"],
                "annotations": kept,
            }
        )
    if num_without_polygon > 0:
        _logger.warning(
            f"Left out {num_without_polygon} annotations of {json_file} whose polygons all have "
            "less than three points, or an odd number of coordinates."
        )
    return records


def _open_coco(json_file: str) -> COCO:
    timer = Timer()
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(json_file)
    if timer.seconds() > SLOW_LOAD_SECONDS:
        _logger.info(f"Reading {json_file} took {timer.seconds():.1f} s")
    return coco


def _categories_to_metadata(coco: COCO, dataset_name: str) -> dict[int, int]:
    category_ids = sorted(coco.getCatIds())
    if category_ids != [*range(1, len(category_ids) + 1)] and "coco" not in dataset_name:
        _logger.warning(
            f"The category ids of '{dataset_name}' are not 1, 2, 3, ...: they are renumbered."
        )
    metadata = MetadataCatalog.get(dataset_name)
    metadata.thing_classes = [category["name"] for category in coco.loadCats(category_ids)]
    contiguous_ids = {category_id: index for index, category_id in enumerate(category_ids)}
    metadata.thing_dataset_id_to_contiguous_id = contiguous_ids
    return contiguous_ids


def _check_annotations(coco: COCO, image_ids: Iterable[int], json_file: str) -> None:
    annotations = [a for image_id in image_ids for a in coco.imgToAnns[image_id]]
    if len(annotations) < len(coco.anns):
        _logger.warning(
            f"{len(coco.anns) - len(annotations)} of {len(coco.anns)} annotations in {json_file} "
            "belong to images that are not in the file."
        )
    if "minival" not in json_file:  # these files of 2014 are known to hold a few ids twice
        ids = {annotation["id"] for annotation in annotations}
        assert len(ids) == len(annotations), f"annotations in {json_file} share ids"


def _read_annotation(
    source: Mapping[str, Any], keys: Sequence[str], contiguous_ids: Mapping[int, int] | None
) -> dict[str, Any] | None:
    """One annotation in Detectron2's format; None if it has polygons and none of them is valid."""
    assert source.get("ignore", 0) == 0, 'annotations to "ignore" have no meaning here'
    annotation = {key: source[key] for key in keys if key in source}
    if "bbox" in annotation and len(annotation["bbox"]) == 0:
        raise ValueError(
            f"An annotation of image {source['image_id']} has an empty 'bbox': remove the "
            "annotation or give it x, y, width and height."
        )
    if source.get("segmentation"):
        annotation["segmentation"] = _read_segmentation(source["segmentation"])
        if not annotation["segmentation"]:
            return None
    if source.get("keypoints"):
        annotation["keypoints"] = _shift_keypoints(source["keypoints"], KEYPOINT_OFFSET)
    annotation["bbox_mode"] = BoxMode.XYWH_ABS
    if contiguous_ids is not None:
        category_id = annotation["category_id"]
        if category_id not in contiguous_ids:
            raise KeyError(
                f"An annotation of image {source['image_id']} is of category {category_id}, which "
                "is not among the 'categories' of the file."
            )
        annotation["category_id"] = contiguous_ids[category_id]
    return annotation


def _read_segmentation(
    segmentation: dict[str, Any] | list[list[float]],
) -> dict[str, Any] | list[list[float]]:
    if isinstance(segmentation, list):
        return [part for part in segmentation if len(part) % 2 == 0 and len(part) >= 6]
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, *segmentation["size"])
    return segmentation


def _shift_keypoints(keypoints: Sequence[float], offset: float) -> list[float]:
    """Move x and y of x0, y0, visible0, x1, ..."""
    return [v if index % 3 == 2 else v + offset for index, v in enumerate(keypoints)]


def convert_to_coco_dict(dataset_name: str) -> dict[str, Any]:
    """A registered data set as what a COCO json file holds.

    Args:
        dataset_name: its name; the metadata needs `thing_classes`.

    Raises:
        KeyError: an annotation of a category that the metadata does not have.
        ValueError: a box that is not 4 (or 5, with angle) numbers.
        TypeError: a segmentation that is neither polygons nor run lengths.
    """
    original_ids, categories = _original_categories(MetadataCatalog.get(dataset_name))
    images, annotations = [], []
    for index, record in enumerate(DatasetCatalog.get(dataset_name)):
        image = {
            "id": record.get("image_id", index),
            "width": int(record["width"]),
            "height": int(record["height"]),
            "file_name": str(record["file_name"]),
        }
        images.append(image)
        for annotation in record.get("annotations", []):
            written = {"id": len(annotations) + 1, "image_id": image["id"]}
            written |= _write_annotation(annotation)
            written["category_id"] = original_ids[annotation["category_id"]]
            annotations.append(written)
    _logger.info(
        f"Converted {len(images)} images with {len(annotations)} annotations to COCO format"
    )
    coco: dict[str, Any] = {
        "info": {
            "date_created": str(datetime.datetime.now()),
            "description": "Written by Detectron2 from a registered data set.",
        },
        "images": images,
        "categories": categories,
        "licenses": None,
    }
    if annotations:
        coco["annotations"] = annotations
    return coco


def _original_categories(metadata: Metadata) -> tuple[dict[int, int], list[dict[str, Any]]]:
    """From class index to the id in the annotation file, and the categories as COCO has them."""
    names = metadata.thing_classes
    original_ids = {index: index for index in range(len(names))}
    contiguous_ids = metadata.get("thing_dataset_id_to_contiguous_id", {})
    original_ids |= {index: category_id for category_id, index in contiguous_ids.items()}
    return original_ids, [{"id": original_ids[i], "name": name} for i, name in enumerate(names)]


def _write_annotation(annotation: Mapping[str, Any]) -> dict[str, Any]:
    box = _coco_box(annotation)
    written: dict[str, Any] = {
        "bbox": [round(float(number), 3) for number in box],
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
    if "segmentation" in annotation:
        written["area"], written["segmentation"] = _write_segmentation(annotation["segmentation"])
    else:
        written["area"] = _box_area(box)
    if "keypoints" in annotation:
        keypoints = _shift_keypoints(annotation["keypoints"], -KEYPOINT_OFFSET)
        visible = sum(flag > 0 for flag in keypoints[2::3])
        written["keypoints"] = keypoints
        written["num_keypoints"] = annotation.get("num_keypoints", visible)
    return written


def _coco_box(annotation: Mapping[str, Any]) -> list[float]:
    """x, y, width, height (or x, y of the centre, width, height, angle) of an annotation."""
    box = annotation["bbox"]
    if isinstance(box, np.ndarray):
        if box.ndim != 1:
            raise ValueError(f"The box of an annotation has one dimension, not shape {box.shape}.")
        box = box.tolist()
    if len(box) not in (4, 5):
        raise ValueError(f"A box has 4 or 5 numbers, not {box}.")
    to_mode = BoxMode.XYWH_ABS if len(box) == 4 else BoxMode.XYWHA_ABS
    return BoxMode.convert(box, annotation["bbox_mode"], to_mode)


def _box_area(box: list[float]) -> float:
    if len(box) == 5:
        return float(box[2] * box[3])
    corners = BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    return Boxes([corners]).area().item()


def _write_segmentation(
    segmentation: dict[str, Any] | list[Any],
) -> tuple[float, dict[str, Any] | list[Any]]:
    """Area and json form of a segmentation."""
    if isinstance(segmentation, list):
        return PolygonMasks([segmentation]).area()[0].item(), segmentation
    if not isinstance(segmentation, dict):
        raise TypeError(
            f"A segmentation is a list of polygons or a dict of run lengths, not "
            f"{type(segmentation)}."
        )
    area, counts = coco_mask.area(segmentation).item(), segmentation["counts"]
    counts = counts if isinstance(counts, str) else counts.decode("ascii")
    return float(area), {**segmentation, "counts": counts}


def convert_to_coco_json(dataset_name: str, output_file: str, allow_cached: bool = True) -> None:
    """Write a registered data set as a COCO json file.

    Args:
        dataset_name: its name; the metadata needs `thing_classes`.
        output_file: the file; processes that write it at the same time wait for each other.
        allow_cached: leave the file alone if it exists.
    """
    PathManager.mkdirs(os.path.dirname(output_file))
    with file_lock(output_file):
        if PathManager.exists(output_file) and allow_cached:
            _logger.warning(
                f"Using the annotations written earlier to '{output_file}': delete the file if the "
                "data set has changed since."
            )
            return
        unfinished = output_file + ".tmp"
        with PathManager.open(unfinished, "w") as file:
            json.dump(convert_to_coco_dict(dataset_name), file)
        shutil.move(unfinished, output_file)
