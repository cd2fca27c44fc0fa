"""COCO average precision and recall of predictions, by pycocotools or its faster twin."""

import contextlib
import importlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from queryseg.evaluation.boundary_iou import boundary_evaluation, inner_border_rle

TASKS = ("bbox", "segm")  # what is evaluated if nothing is said
ALL_TASKS = (*TASKS, "boundary")
AREAS = ("all", "small", "medium", "large")  # the order of the areas in COCO's arrays
DEFAULT_MAX_DETECTIONS = 100
_FAST_PACKAGE = "faster_coco_eval"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counting:
    """Raw results of the COCO matching.

    Attributes:
        precision: (T, R, K, A, M): IoU thresholds 0.5 to 0.95, recall points, classes, areas,
            detection limits; -1 where there is no ground truth.
        recall: (T, K, A, M), likewise.
        limits: the M detection limits.
    """

    precision: np.ndarray
    recall: np.ndarray
    limits: tuple[int, ...]

    def summary(self) -> dict[str, float]:
        """The twelve COCO numbers in percent; NaN where there is no ground truth.

        AP, AP50, AP75 and AP by area (s, m, l) use the largest detection limit; AR@n is average
        recall with n detections an image, ARs@n and so on the same by area.
        """
        top = self.limits[-1]
        results = {
            "AP": _mean(self.precision[:, :, :, 0, -1]),
            "AP50": _mean(self.precision[0, :, :, 0, -1]),
            "AP75": _mean(self.precision[5, :, :, 0, -1]),
        }
        for index, area in enumerate(AREAS[1:], start=1):
            results[f"AP{area[0]}"] = _mean(self.precision[:, :, :, index, -1])
        for index, limit in enumerate(self.limits):
            results[f"AR@{limit}"] = _mean(self.recall[:, :, 0, index])
        for index, area in enumerate(AREAS[1:], start=1):
            results[f"AR{area[0]}@{top}"] = _mean(self.recall[:, :, index, -1])
        return results

    def per_class(self) -> list[float]:
        """AP of every class in percent; NaN for a class without ground truth."""
        classes = range(self.precision.shape[2])
        return [_mean(self.precision[:, :, k, 0, -1]) for k in classes]


def count_matches(
    image_sizes: Sequence[tuple[int, int]],
    ground_truth: Sequence[dict[str, Any]],
    predictions: Sequence[dict[str, Any]],
    num_classes: int,
    task: str,
    max_detections: int = DEFAULT_MAX_DETECTIONS,
    fast: bool = True,
) -> Counting:
    """Match predictions to ground truth as COCO does.

    Args:
        image_sizes: (height, width) of every image; an image's place in it is its `image_id`.
        ground_truth: dicts with `image_id`, `category_id` (0 to K - 1), `bbox` (x, y, width,
            height), `segmentation` (compressed RLE), `area`, `iscrowd`.
        predictions: dicts with `image_id`, `category_id`, `score` and `bbox` or `segmentation`.
        num_classes: K.
        task: `bbox`, `segm`, or `boundary`: masks by the smaller of mask IoU and Boundary IoU.
        max_detections: most detections an image that count, in the order of their scores.
        fast: use faster-coco-eval where it is installed (same numbers, several times faster).

    Raises:
        ValueError: an unknown task.
    """
    if task not in ALL_TASKS:
        raise ValueError(f"task must be one of {ALL_TASKS}, got {task!r}")
    images = [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(image_sizes)]
    classes = [{"id": k, "name": str(k)} for k in range(num_classes)]
    # Ids start at 1: COCO's matching takes the id 0 for "not matched".
    truth = [{**annotation, "id": i} for i, annotation in enumerate(ground_truth, start=1)]
    found = [_detection(p, i, task) for i, p in enumerate(predictions, start=1)]
    limits = [min(1, max_detections), min(10, max_detections), max_detections]
    if task == "boundary":
        for annotation in (*truth, *found):
            annotation["boundary"] = inner_border_rle(annotation["segmentation"])
    coco_class, eval_class = _backend(task, fast)
    with contextlib.redirect_stdout(io.StringIO()):
        sets = []
        for annotations in (truth, found):
            coco = coco_class()
            coco.dataset = {"images": images, "categories": classes, "annotations": annotations}
            coco.createIndex()
            sets.append(coco)
        evaluation = eval_class(sets[0], sets[1], "segm" if task == "boundary" else task)
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    shape = (len(evaluation.params.iouThrs), len(evaluation.params.recThrs))
    rest = (num_classes, len(AREAS), len(limits))
    return Counting(
        precision=np.asarray(evaluation.eval["precision"]).reshape(*shape, *rest),
        recall=np.asarray(evaluation.eval["recall"]).reshape(shape[0], *rest),
        limits=tuple(limits),
    )


def _detection(prediction: dict[str, Any], own_id: int, task: str) -> dict[str, Any]:
    detection = {
        "id": own_id,
        "image_id": prediction["image_id"],
        "category_id": prediction["category_id"],
        "score": prediction["score"],
        "iscrowd": 0,
    }
    if task == "bbox":
        box = prediction["bbox"]
        return {**detection, "bbox": box, "area": box[2] * box[3]}
    rle = prediction["segmentation"]
    # The area of the mask, not of the box, decides between small, medium and large.
    area = float(mask_util.area(rle))
    return {**detection, "segmentation": rle, "bbox": mask_util.toBbox(rle).tolist(), "area": area}


def _backend(task: str, fast: bool) -> tuple[Any, Any]:
    if task == "boundary":
        return _reference_backend()[0], boundary_evaluation()
    return (_fast_backend() if fast else None) or _reference_backend()


def _reference_backend() -> tuple[Any, Any]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def _fast_backend() -> tuple[Any, Any] | None:
    try:
        package = importlib.import_module(_FAST_PACKAGE)
    except ImportError:
        _logger.info("faster-coco-eval is not installed: using pycocotools")
        return None
    return package.COCO, package.COCOeval_faster


def _mean(values: np.ndarray) -> float:
    counted = values[values > -1]
    return float(counted.mean() * 100) if counted.size else float("nan")
