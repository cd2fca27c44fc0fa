"""Cityscapes instance evaluation by the public `cityscapesscripts`."""

import contextlib
import copy
import importlib
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import detectron2.utils.comm as comm
import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from PIL import Image
from tabulate import tabulate

from queryseg.data.cityscapes import LABELS, find_cityscapes_files
from queryseg.data.registration import ensure_registered
from queryseg.evaluation.cityscapes_boundary import use_boundary_overlaps

SCRIPT = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"

_logger = logging.getLogger(__name__)


class CityscapesEvaluator(DatasetEvaluator):
    """The AP and AP50 of Cityscapes' own script.

    Predictions are kept as files, as the script wants them, in a folder that is removed afterwards.
    Works where Detectron2's evaluator does not: it needs nothing but the published package, and
    also runs on NumPy versions that dropped what the package calls.

    Args:
        dataset_name: a registered or known Cityscapes split.
        output_dir: keep the predictions there, in the format of the server.
        boundary: also give boundary AP: the script's, with the smaller of mask IoU and Boundary IoU
            as overlap; the border is 0.5 % of the image's diagonal wide.

    Raises:
        ModuleNotFoundError: `cityscapesscripts` is not installed.
        FileNotFoundError: the split is not there.
        ValueError: the set is not Cityscapes.
    """

    def __init__(
        self, dataset_name: str, *, output_dir: str | None = None, boundary: bool = False
    ) -> None:
        try:
            self._script = importlib.import_module(SCRIPT)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the evaluation of Cityscapes needs cityscapesscripts: "
                "pip install 'queryseg[cityscapes]'"
            ) from error
        ensure_registered(dataset_name)
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.get("evaluator_type") != "cityscapes_instance":
            raise ValueError(f"data set {dataset_name!r} is not a split of Cityscapes")
        self._class_names = list(metadata.get("thing_classes") or LABELS)
        files = find_cityscapes_files(metadata.json_file, metadata.image_root)
        self._truth = {file.image_id: file.truth for file in files}
        self._tasks = ("segm", "boundary") if boundary else ("segm",)
        self._output_dir = output_dir
        self._kept: tempfile.TemporaryDirectory[str] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the predictions. All processes write into one folder."""
        if self._output_dir:
            self._folder = Path(self._output_dir)
            self._folder.mkdir(parents=True, exist_ok=True)
            return
        if comm.is_main_process():
            self._kept = tempfile.TemporaryDirectory(prefix="cityscapes_")
        name = self._kept.name if self._kept else ""
        self._folder = Path(comm.all_gather(name)[0])

    def process(self, inputs: Iterable[dict[str, Any]], outputs: Iterable[dict[str, Any]]) -> None:
        """Write predictions.

        Args:
            inputs: dicts with `image_id`.
            outputs: dicts with `instances`: `scores`, `pred_classes` and `pred_masks` (n, H, W).

        Raises:
            ValueError: an image or a class that the set lacks.
        """
        for one_input, output in zip(inputs, outputs):
            image_id = one_input["image_id"]
            if image_id not in self._truth:
                raise ValueError(
                    f"a prediction is for image {image_id!r}, which the data set lacks: the test "
                    "loader and the evaluator must use the same data set"
                )
            instances = output["instances"].to(torch.device("cpu"))
            lines = []
            for place, (label, score) in enumerate(
                zip(instances.pred_classes.tolist(), instances.scores.tolist())
            ):
                if label >= len(self._class_names):
                    raise ValueError(
                        f"a prediction has class {label}, but the data set has "
                        f"{len(self._class_names)} classes: set model.num_classes to that number"
                    )
                name = f"{image_id}_{place}.png"
                mask = instances.pred_masks[place].numpy().astype(np.uint8) * 255
                Image.fromarray(mask).save(self._folder / name, compress_level=1)
                lines.append(f"{name} {LABELS[self._class_names[label]]} {score}\n")
            (self._folder / f"{image_id}_pred.txt").write_text("".join(lines), encoding="utf-8")

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Compute the results from all predictions.

        Returns:
            `{"segm": {"AP", "AP50", "AP-<class>", ...}}` in percent, with `boundary` beside `segm`
            where it was asked for; NaN for a class without ground truth; on other processes than
            the first, an empty dict.

        Raises:
            FileNotFoundError: the split has no annotations, or images were not predicted.
        """
        comm.synchronize()
        if not comm.is_main_process():
            return {}
        predicted = {image_id: self._folder / f"{image_id}_pred.txt" for image_id in self._truth}
        absent = [str(f) for f in (*self._truth.values(), *predicted.values()) if not f.is_file()]
        if absent:
            raise FileNotFoundError(f"{len(absent)} files are missing, the first is {absent[0]}")
        averages = self._run(
            list(map(str, predicted.values())), list(map(str, self._truth.values()))
        )
        if self._kept:
            self._kept.cleanup()
        return {task: self._figures(task, found) for task, found in averages.items()}

    def _figures(self, task: str, averages: dict[str, Any]) -> dict[str, float]:
        figures = {"AP": averages["allAp"] * 100, "AP50": averages["allAp50%"] * 100}
        table = tabulate([figures.values()], list(figures), floatfmt=".2f", tablefmt="pipe")
        _logger.info("Evaluation results for %s:\n%s", task, table)
        per_class = averages["classes"]
        figures |= {f"AP-{name}": per_class[name]["ap"] * 100 for name in self._class_names}
        return {name: float(value) for name, value in figures.items()}

    def _run(self, predicted: list[str], truth: list[str]) -> dict[str, dict[str, Any]]:
        """The script's averages by task, with its settings but none of its files and printing."""
        script = self._script
        with tempfile.TemporaryDirectory() as folder, _numpy_as_the_script_knows_it():
            settings = copy.deepcopy(script.args)
            settings.predictionPath = str(self._folder.resolve())
            settings.gtInstancesFile = str(Path(folder) / "gtInstances.json")
            settings.quiet = True
            script.setInstanceLabels(settings)
            instances = script.getGtInstances(truth, settings)
            matches = script.matchGtWithPreds(predicted, truth, instances, settings)
            averages = {}
            for task in self._tasks:
                if task == "boundary":
                    use_boundary_overlaps(matches, int(settings.minRegionSizes[0]))
                overlaps = script.evaluateMatches(matches, settings)
                averages[task] = script.computeAverages(overlaps, settings)
            return averages


@contextlib.contextmanager
def _numpy_as_the_script_knows_it() -> Iterator[None]:
    """`numpy.in1d` for the time being, where NumPy (2.4 and later) has `isin` alone."""
    if hasattr(np, "in1d"):
        yield
        return
    np.in1d = _in1d  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del np.in1d  # type: ignore[attr-defined]


def _in1d(values: np.ndarray, known: Any) -> np.ndarray:
    return np.isin(np.ravel(values), known)
