"""COCO evaluation of boxes and masks, for any data set in COCO format."""

import itertools
import json
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import detectron2.utils.comm as comm
import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator as Detectron2COCOEvaluator
from detectron2.structures import BoxMode, Instances
from tabulate import tabulate

from queryseg.data.coco_json import LoadedSet, load_coco_json
from queryseg.data.cocofied_lvis import load_cocofied_lvis
from queryseg.data.known_datasets import Kind
from queryseg.data.masks import decode
from queryseg.data.registration import ensure_registered
from queryseg.evaluation.coco_metrics import (
    ALL_TASKS,
    DEFAULT_MAX_DETECTIONS,
    TASKS,
    Counting,
    count_matches,
)
from queryseg.evaluation.federated_labels import FederatedLabels

RESULTS_FILE = "coco_instances_results.json"
_CLASS_COLUMNS = 3

_logger = logging.getLogger(__name__)


class COCOEvaluator(Detectron2COCOEvaluator):
    """AP and AR of boxes and masks.

    The numbers and their names are those of Detectron2's evaluator (keypoints and box proposals
    aside), with AR by number of detections and by area added. Beyond it: ids may be doubled, zero
    or strings; `info`, `licenses`, `area`, `bbox` and `iscrowd` may lack; unusable annotations are
    left out with a warning; boxes are taken from the masks where a model leaves zeros; a model that
    finds nothing has AP 0. Where images say which classes they were searched for, as those of LVIS,
    predictions of other classes do not count (`FederatedLabels`).

    Args:
        dataset_name: a registered or known data set.
        tasks: of `bbox`, `segm` and `boundary` (boundary AP: masks by the smaller of mask IoU and
            Boundary IoU); by default boxes and masks, as far as the predictions allow.
        distributed: gather the predictions of all processes.
        output_dir: where the predictions are written as `coco_instances_results.json`.
        max_dets_per_image: the detection limit of AP; 100 if None.
        use_fast_impl: use faster-coco-eval where it is installed.

    Raises:
        FileNotFoundError: the annotation file is not there.
        ValueError: an unknown data set, a broken annotation file, or one without annotations
            (allowed with `output_dir`, for test sets that a server evaluates).
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
    ) -> None:
        # Detectron2's constructor is not called: it reads the json with pycocotools, which stops at
        # what `load_coco_json` leaves out.
        unknown = set(tasks or ()) - set(ALL_TASKS)
        if unknown:
            raise ValueError(f"unknown tasks {sorted(unknown)}: choose from {ALL_TASKS}")
        self._tasks = tuple(tasks) if tasks else None
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_detections = max_dets_per_image or DEFAULT_MAX_DETECTIONS
        self._fast = use_fast_impl
        self._predictions: list[dict[str, Any]] = []
        loaded = _load(dataset_name)
        self._class_names = loaded.class_names
        self._category_of = {index: category for category, index in loaded.index_of.items()}
        self._image_ids = [image["image_id"] for image in loaded.images]
        self._sizes = [(image["height"], image["width"]) for image in loaded.images]
        self._ground_truth = _ground_truth(loaded.images)
        self._federated = FederatedLabels.of(loaded.images)
        if self._federated is not None:
            _logger.info(
                "%s: images say which classes they were searched for; what is found of others does "
                "not count there, as in the LVIS API",
                dataset_name,
            )
        if not self._ground_truth and (loaded.has_annotations or output_dir is None):
            raise ValueError(nothing_to_evaluate(dataset_name))

    def reset(self) -> None:
        """Forget the predictions."""
        self._predictions = []

    def process(self, inputs: Iterable[dict[str, Any]], outputs: Iterable[dict[str, Any]]) -> None:
        """Take predictions in.

        Args:
            inputs: dicts with `image_id`.
            outputs: dicts with `instances`: `scores`, `pred_classes`, and `pred_masks` (n, H, W) or
                `pred_boxes`.

        Raises:
            ValueError: a score is not finite.
        """
        for one_input, output in zip(inputs, outputs):
            instances = output["instances"].to(torch.device("cpu"))
            self._predictions += predictions_of(instances, one_input["image_id"])

    def evaluate(self, img_ids: Sequence[int | str] | None = None) -> dict[str, dict[str, float]]:
        """Compute the results from all predictions.

        Args:
            img_ids: count only these images.

        Returns:
            `{"bbox": {"AP": ..., ...}, "segm": {...}}` in percent; `AP-<class>` for every class; on
            other processes than the first, an empty dict.

        Raises:
            ValueError: a prediction for an image or class that the data set lacks.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather(predictions, dst=0)
            if not comm.is_main_process():
                return {}
            predictions = list(itertools.chain.from_iterable(gathered))
        self._check(predictions)
        if self._output_dir:
            self._write(predictions)
        if not self._ground_truth:
            _logger.warning("no annotations: the predictions are stored, nothing is evaluated")
            return {}
        results = {}
        for task in self._tasks or _possible_tasks(predictions):
            counting = self._count(predictions, task, img_ids)
            per_class = dict(zip(self._class_names, counting.per_class()))
            results[task] = counting.summary()
            self._log(task, results[task], per_class)
            if len(per_class) > 1:
                results[task].update({f"AP-{name}": ap for name, ap in per_class.items()})
        return results

    def _check(self, predictions: Sequence[dict[str, Any]]) -> None:
        known_ids = set(self._image_ids)
        for prediction in predictions:
            if prediction["image_id"] not in known_ids:
                raise ValueError(
                    f"a prediction is for image {prediction['image_id']!r}, which the data set "
                    "lacks: the test loader and the evaluator must use the same data set"
                )
            if prediction["category_id"] >= len(self._class_names):
                raise ValueError(
                    f"a prediction has class {prediction['category_id']}, but the data set has "
                    f"{len(self._class_names)} classes: set model.num_classes to that number"
                )

    def _write(self, predictions: Sequence[dict[str, Any]]) -> None:
        folder = Path(str(self._output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        named = [
            {**p, "category_id": self._category_of[p["category_id"]]}
            for p in predictions
            if p["category_id"] in self._category_of
        ]
        (folder / RESULTS_FILE).write_text(json.dumps(named), encoding="utf-8")

    def _count(
        self,
        predictions: Sequence[dict[str, Any]],
        task: str,
        img_ids: Sequence[int | str] | None,
    ) -> Counting:
        chosen = self._image_ids if img_ids is None else list(img_ids)
        place = {image_id: index for index, image_id in enumerate(chosen)}
        size_of = dict(zip(self._image_ids, self._sizes))

        def placed(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
            kept = [entry for entry in entries if entry["image_id"] in place]
            return [{**entry, "image_id": place[entry["image_id"]]} for entry in kept]

        truth = self._ground_truth
        if self._federated is not None:
            predictions = self._federated.judged(predictions)
            truth = truth + self._federated.crowds(predictions, size_of)
        return count_matches(
            [size_of[image_id] for image_id in chosen],
            placed(truth),
            placed(predictions),
            num_classes=len(self._class_names),
            task=task,
            max_detections=self._max_detections,
            fast=self._fast,
        )

    def _log(self, task: str, summary: dict[str, float], per_class: dict[str, float]) -> None:
        table = tabulate([summary.values()], headers=list(summary), floatfmt=".2f", tablefmt="pipe")
        _logger.info("Evaluation results for %s:\n%s", task, table)
        counts = [0] * len(self._class_names)
        for annotation in self._ground_truth:
            counts[annotation["category_id"]] += not annotation["iscrowd"]
        cells = [[name, n, ap] for (name, ap), n in zip(per_class.items(), counts)]
        columns = min(_CLASS_COLUMNS, len(cells))
        rows = [
            list(itertools.chain.from_iterable(cells[start : start + columns]))
            for start in range(0, len(cells), columns)
        ]
        headers = ["class", "objects", "AP"] * columns
        table = tabulate(rows, headers=headers, floatfmt=".2f", tablefmt="pipe")
        _logger.info("%s AP of every class:\n%s", task, table)


def predictions_of(instances: Instances, image_id: int | str) -> list[dict[str, Any]]:
    """Predictions in COCO's result format, masks as compressed RLE.

    Args:
        instances: on the CPU, with `scores`, `pred_classes`, and `pred_masks` or `pred_boxes`.
            Boxes that are absent or all zero are taken from the masks.
        image_id: of the image.

    Returns:
        dicts with `image_id`, `category_id` (the class index), `score`, `bbox` (x, y, width,
        height) and `segmentation` if there are masks.

    Raises:
        ValueError: a score is not finite.
    """
    scores = instances.scores.tolist()
    if not all(math.isfinite(score) for score in scores):
        raise ValueError(f"a prediction for image {image_id!r} has a score that is not finite")
    if not scores:
        return []
    rles = _encode(instances.pred_masks) if instances.has("pred_masks") else None
    boxes = None
    if instances.has("pred_boxes"):
        corners = instances.pred_boxes.tensor
        if rles is None or bool(corners.any()):
            boxes = BoxMode.convert(corners, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    if boxes is None:
        boxes = mask_util.toBbox(rles).tolist()
    predictions = []
    for index, label in enumerate(instances.pred_classes.tolist()):
        prediction = {
            "image_id": image_id,
            "category_id": label,
            "bbox": boxes[index],
            "score": scores[index],
        }
        if rles is not None:
            counts = rles[index]["counts"].decode("ascii")
            prediction["segmentation"] = {"size": list(rles[index]["size"]), "counts": counts}
        predictions.append(prediction)
    return predictions


def _encode(masks: torch.Tensor) -> list[dict[str, Any]]:
    binary = (masks > 0.5).to(torch.uint8).numpy()
    return mask_util.encode(np.asfortranarray(binary.transpose(1, 2, 0)))


def nothing_to_evaluate(dataset_name: str) -> str:
    """What is said of a set without a usable annotation."""
    file = MetadataCatalog.get(dataset_name).get("json_file")
    return (
        f"data set {dataset_name!r} ({file}) has no usable annotations: there is nothing to "
        "evaluate against. Give annotations, or, for a json without the list annotations, "
        "dataloader.evaluator.output_dir to store predictions for a server."
    )


def _load(dataset_name: str) -> LoadedSet:
    ensure_registered(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    class_names = metadata.get("thing_classes")
    json_file = metadata.get("json_file")
    if json_file is None or Path(json_file).is_dir():  # a set that is no json, as Cityscapes
        images = DatasetCatalog.get(dataset_name)
        names = list(metadata.thing_classes)
        return LoadedSet(images, names, dict(zip(range(len(names)), range(len(names)))), True)
    root = metadata.get("image_root", "")
    is_lvis = metadata.get("evaluator_type") == Kind.COCOFIED_LVIS.value
    load = load_cocofied_lvis if is_lvis else load_coco_json
    return load(metadata.json_file, root, class_names, check_files=False)


def _ground_truth(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    entries = []
    for image in images:
        height, width = image["height"], image["width"]
        for annotation in image.get("annotations", ()):
            mask = decode(annotation["segmentation"], height, width)
            rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
            box = BoxMode.convert(
                list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYWH_ABS
            )
            entries.append(
                {
                    "image_id": image["image_id"],
                    "category_id": annotation["category_id"],
                    "iscrowd": int(annotation.get("iscrowd", 0)),
                    "bbox": box,
                    "segmentation": rle,
                    "area": annotation.get("area", float(mask.sum())),
                }
            )
    return entries


def _possible_tasks(predictions: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    has_masks = any("segmentation" in p for p in predictions)
    return TASKS if has_masks or not predictions else ("bbox",)
