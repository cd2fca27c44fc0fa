"""Average precision of boxes and masks, as COCO measures it."""

import contextlib
import copy
import io
import itertools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectron2._subset import NeedsRealDetectron2
from detectron2.data import MetadataCatalog
from detectron2.data._category_table import category_table
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.structures import BoxMode, Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from .evaluator import DatasetEvaluator
from .fast_eval_api import COCOeval_opt

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


class COCOEvaluator(DatasetEvaluator):
    """AP of boxes and masks over a data set, in per cent; NaN where there is nothing to measure.

    Args:
        dataset_name: name of the data set. Without `json_file` in its metadata it is written in
            COCO format to `output_dir` first.
        tasks: "bbox", "segm" or both; found from the predictions if None.
        distributed: gather the predictions of all processes in the first one.
        output_dir: folder for `instances_predictions.pth` and `coco_instances_results.json`.
        max_dets_per_image: the best detections of each image that count, 100 unless given.
        use_fast_impl: accepted for the real package's compiled evaluation; the subset evaluates
            with pycocotools.
        kpt_oks_sigmas: keypoints need the real Detectron2.
        allow_cached_coco: use the COCO format written by an earlier run.

    Raises:
        ValueError: a data set not in COCO format without `output_dir`.
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
        kpt_oks_sigmas: Sequence[float] = (),
        allow_cached_coco: bool = True,
    ) -> None:
        self._logger = logging.getLogger(__name__)
        self._tasks = tasks
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_dets_per_image = [1, 10, max_dets_per_image or 100]
        self._use_fast_impl = use_fast_impl and COCOeval_opt is not COCOeval
        self._kpt_oks_sigmas = kpt_oks_sigmas
        self._cpu_device = torch.device("cpu")
        self._predictions: list[dict[str, Any]] = []
        self._results: dict[str, dict[str, float]] = {}

        self._metadata = MetadataCatalog.get(dataset_name)
        if not hasattr(self._metadata, "json_file"):
            self._write_in_coco_format(dataset_name, allow_cached_coco)
        json_file = PathManager.get_local_path(os.fspath(self._metadata.json_file))
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco_api = COCO(json_file)
        # Files of test sets have no annotations: their predictions are only written.
        self._do_evaluation = "annotations" in self._coco_api.dataset

    def _write_in_coco_format(self, dataset_name: str, allow_cached: bool) -> None:
        if self._output_dir is None:
            raise ValueError(
                f"Dataset '{dataset_name}' is not in COCO format: COCOEvaluator needs an "
                "output_dir to write it there."
            )
        json_file = os.path.join(self._output_dir, f"{dataset_name}_coco_format.json")
        convert_to_coco_json(dataset_name, json_file, allow_cached=allow_cached)
        self._metadata.json_file = json_file

    def reset(self) -> None:
        self._predictions = []

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Keep the detections of a batch.

        Args:
            inputs: dicts with "image_id".
            outputs: dicts with "instances" (`pred_boxes`, `scores`, `pred_classes` and, if there
                are any, `pred_masks` (N, H, W)).
        """
        for sample, output in zip(inputs, outputs, strict=False):
            if "proposals" in output:
                raise NeedsRealDetectron2("The evaluation of proposals")
            if "instances" in output:
                instances = output["instances"].to(self._cpu_device)
                detections = instances_to_coco_json(instances, sample["image_id"])
                prediction = {"image_id": sample["image_id"], "instances": detections}
                self._predictions.append(prediction)

    def evaluate(self, img_ids: Sequence[int] | None = None) -> dict[str, dict[str, float]]:
        """The results, for each task AP, AP50, AP75, APs, APm, APl and AP of each category.

        Args:
            img_ids: evaluate on these images only.

        Returns:
            {} in all but the first process, and where nothing was predicted at all.
        """
        self._results = {}
        predictions = self._gather_predictions()
        if predictions and self._output_dir:
            PathManager.mkdirs(self._output_dir)
            dump = os.path.join(self._output_dir, "instances_predictions.pth")
            with PathManager.open(dump, "wb") as file:
                torch.save(predictions, file)
        if predictions:
            self._eval_predictions(predictions, img_ids=img_ids)
        elif comm.is_main_process():
            self._logger.warning("There are no predictions to evaluate.")
        return copy.deepcopy(self._results)

    def _gather_predictions(self) -> list[dict[str, Any]]:
        """Those of all processes; [] in all but the first."""
        if not self._distributed:
            return self._predictions
        comm.synchronize()
        return list(itertools.chain(*comm.gather(self._predictions, dst=0)))

    def _eval_predictions(
        self, predictions: Sequence[dict[str, Any]], img_ids: Sequence[int] | None = None
    ) -> None:
        """Fill `_results` with the metrics of each task."""
        detections = list(itertools.chain(*[image["instances"] for image in predictions]))
        tasks = self._tasks or self._tasks_from_predictions(detections)
        self._restore_category_ids(detections)
        if self._output_dir:
            dump = os.path.join(self._output_dir, "coco_instances_results.json")
            self._logger.info(f"Writing detections to {dump}")
            with PathManager.open(dump, "w") as file:
                json.dump(detections, file)
        if not self._do_evaluation:
            self._logger.info(
                "The annotation file has no annotations: nothing to evaluate against."
            )
            return
        for task in sorted(tasks):
            evaluated = None
            if detections:
                evaluated = _evaluate_predictions_on_coco(
                    self._coco_api,
                    detections,
                    task,
                    cocoeval_fn=COCOeval_opt if self._use_fast_impl else COCOeval,
                    img_ids=img_ids,
                    max_dets_per_image=self._max_dets_per_image,
                )
            self._results[task] = self._derive_coco_results(
                evaluated, task, class_names=self._metadata.get("thing_classes")
            )

    def _tasks_from_predictions(self, predictions: Sequence[Mapping[str, Any]]) -> list[str]:
        has_masks = any("segmentation" in prediction for prediction in predictions)
        return ["bbox", "segm"] if has_masks else ["bbox"]

    def _restore_category_ids(self, detections: Sequence[dict[str, Any]]) -> None:
        """From class indices to the ids in the annotation file, in place."""
        contiguous_ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if contiguous_ids is None:
            return
        num_classes = len(contiguous_ids)
        original_ids = {index: category_id for category_id, index in contiguous_ids.items()}
        assert original_ids.keys() == set(range(num_classes)), "class indices have gaps"
        for detection in detections:
            index = detection["category_id"]
            assert index < num_classes, (
                f"a prediction is of class {index}, but the data set has {num_classes} classes"
            )
            detection["category_id"] = original_ids[index]

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        """Metrics in per cent from a summarised evaluation; None stands for no detections."""
        if coco_eval is None:
            self._logger.warning("The model found nothing: all metrics are NaN.")
            return dict.fromkeys(METRICS, float("nan"))
        results = {
            metric: float(value * 100) if value >= 0 else float("nan")
            for metric, value in zip(METRICS, coco_eval.stats, strict=False)
        }
        self._logger.info(f"Evaluation results for {iou_type}: \n" + create_small_table(results))
        if not np.isfinite(sum(results.values())):
            self._logger.info("NaN: the data set has nothing to measure this on.")
        if class_names is None or len(class_names) <= 1:
            return results
        per_category = _ap_per_category(coco_eval.eval["precision"], class_names)
        table = category_table(per_category, "AP", floatfmt=".3f")
        self._logger.info(f"Per-category {iou_type} AP: \n" + table)
        return results | {f"AP-{name}": value for name, value in per_category}


def _ap_per_category(precision: np.ndarray, class_names: Sequence[str]) -> list[tuple[str, float]]:
    """AP of each category, in per cent.

    Args:
        precision: (thresholds, recalls, categories, areas, detection limits), -1 for nothing to
            measure.
        class_names: their names.
    """
    assert len(class_names) == precision.shape[2], "metadata and annotations differ in categories"
    per_category = []
    for index, name in enumerate(class_names):
        measured = precision[:, :, index, 0, -1]
        measured = measured[measured > -1]
        value = np.mean(measured) if measured.size else float("nan")
        per_category.append((name, float(value * 100)))
    return per_category


def instances_to_coco_json(instances: Instances, img_id: int) -> list[dict[str, Any]]:
    """Detections of one image in COCO's result format.

    Args:
        instances: on the CPU, with `pred_boxes`, `scores`, `pred_classes`, maybe `pred_masks`.
        img_id: id of the image.

    Returns:
        A dict for each object, with the mask as run lengths. Keypoints need the real Detectron2.
    """
    if len(instances) == 0:
        return []
    if instances.has("pred_keypoints"):
        raise NeedsRealDetectron2("The evaluation of keypoints")
    corners = instances.pred_boxes.tensor.numpy()
    boxes = BoxMode.convert(corners, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    columns = zip(instances.pred_classes.tolist(), boxes, instances.scores.tolist(), strict=True)
    results = [
        {"image_id": img_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in columns
    ]
    if instances.has("pred_masks"):
        for result, mask in zip(results, instances.pred_masks, strict=True):
            result["segmentation"] = _run_lengths(torch.as_tensor(mask).numpy())
    return results


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths of a mask (H, W), as text that json can hold."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {**encoded, "counts": encoded["counts"].decode("utf-8")}


def _evaluate_predictions_on_coco(
    coco_gt: COCO,
    coco_results: Sequence[dict[str, Any]],
    iou_type: str,
    kpt_oks_sigmas: Sequence[float] | None = None,
    cocoeval_fn: type[COCOeval] = COCOeval_opt,
    img_ids: Sequence[int] | None = None,
    max_dets_per_image: Sequence[int] | None = None,
) -> COCOeval:
    """Evaluate detections of one kind, "bbox" or "segm"; `stats` of the result is filled."""
    assert len(coco_results) > 0, "pycocotools cannot evaluate without any detection"
    if iou_type not in ("bbox", "segm") or kpt_oks_sigmas:
        raise NeedsRealDetectron2(f"The evaluation of {iou_type!r}")
    if iou_type == "segm":
        # With a box present, small and large would be told from the area of the box.
        coco_results = [
            {key: value for key, value in result.items() if key != "bbox"}
            for result in coco_results
        ]
    limits = [1, 10, 100] if max_dets_per_image is None else list(max_dets_per_image)
    assert len(limits) >= 3, f"COCOeval needs three limits of detections per image, not {limits}"
    if limits[2] != 100:
        cocoeval_fn = COCOevalMaxDets
    coco_eval = cocoeval_fn(coco_gt, coco_gt.loadRes(coco_results), iou_type)
    coco_eval.params.maxDets = limits
    if img_ids is not None:
        coco_eval.params.imgIds = img_ids
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    return coco_eval


class COCOevalMaxDets(COCOeval):
    """`COCOeval` whose AP follows the limit of detections; that of pycocotools insists on 100."""

    def summarize(self) -> None:
        table = io.StringIO()
        with contextlib.redirect_stdout(table):
            super().summarize()
        limit = self.params.maxDets[2]
        precision = self.eval["precision"][:, :, :, 0, 2]
        measured = precision[precision > -1]
        self.stats[0] = measured.mean() if measured.size else -1
        _, *other_lines = table.getvalue().splitlines()
        title = f" Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets={limit:>3d} ]"
        lines = [f"{title} = {self.stats[0]:0.3f}", *other_lines]
        logging.getLogger(__name__).info("\n".join(lines))
