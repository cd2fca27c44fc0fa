"""`benchmarks/vis_bounds.py`: the same detections with what the ground truth knows of them."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from known_sets import datasets_in

from queryseg.checkpoint import Checkpointer
from queryseg.data.moving_shapes import MovingShapesSpec, write_moving_shapes
from queryseg.data.registration import get_dataset_dicts
from queryseg.engine import load_config
from queryseg.evaluation import VideoEvaluator

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CONFIG = "queryinst/queryinst_vis_tiny.py"


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("vis_bounds", BENCHMARKS / "vis_bounds.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "vis_bounds", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def videos(tmp_path: Path) -> Iterator[None]:
    spec = MovingShapesSpec(train=1, val=2, height=48, width=64, frames=4, seed=3)
    write_moving_shapes(tmp_path / "moving_shapes", spec)
    with datasets_in(tmp_path):
        yield


def found(masks: np.ndarray, scores: list[float], classes: list[int]) -> Instances:
    return Instances(
        masks.shape[1:],
        pred_masks=torch.tensor(masks),
        pred_boxes=Boxes(torch.zeros(len(masks), 4)),
        scores=torch.tensor(scores),
        pred_classes=torch.tensor(classes),
        place=torch.arange(len(masks)),
    )


def rows(*ranges: tuple[int, int]) -> np.ndarray:
    masks = np.zeros((len(ranges), 20, 4), dtype=bool)
    for mask, (start, end) in zip(masks, ranges):
        mask[start:end] = True
    return masks


def test_detections_get_the_objects_whose_masks_they_fit_best(bounds: ModuleType) -> None:
    detections = found(
        rows((0, 9), (0, 12), (10, 20), (19, 20)), [0.9, 0.8, 0.7, 0.6], [1, 1, 1, 2]
    )
    truth = rows((0, 10), (12, 20))
    frame = bounds.SeenFrame({"video_id": 0, "frame": 0}, detections, truth, [7, 4], [1, 5])
    chosen = bounds.all_detections(frame)
    # Overlaps with the first object: 9/10, 10/12, 0, 0; with the second: 0, 0, 8/10, 1/8.
    assert chosen.place.tolist() == [0, 2]
    assert chosen.pred_track_ids.tolist() == [7, 4]
    assert chosen.pred_classes.tolist() == [1, 1]
    assert bounds.all_with_true_classes(frame).pred_classes.tolist() == [1, 5]


@pytest.mark.parametrize(("num_objects", "num_found"), [(0, 2), (2, 0), (0, 0), (1, 1)])
def test_what_overlaps_nothing_is_left_out(
    bounds: ModuleType, num_objects: int, num_found: int
) -> None:
    detections = found(rows(*[(0, 3)] * num_found), [0.5] * num_found, [0] * num_found)
    truth = rows(*[(9, 12)] * num_objects)
    ids = list(range(num_objects))
    frame = bounds.SeenFrame({"video_id": 0, "frame": 0}, detections, truth, ids, ids)
    chosen = bounds.all_with_true_classes(frame)
    assert len(chosen) == len(chosen.pred_track_ids) == len(chosen.pred_classes) == 0


@pytest.mark.usefixtures("videos")
def test_perfect_masks_reach_everything_once_identities_and_classes_are_true(
    bounds: ModuleType,
) -> None:
    cfg = load_config(CONFIG)
    seen = []
    for video in get_dataset_dicts("moving_shapes_val"):
        for number, truth in enumerate(video["annotations"]):
            masks = np.array([bounds.decode(one["segmentation"], 48, 64) for one in truth])
            classes = [one["category_id"] for one in truth]
            wrong = [(one + 1) % 6 for one in classes]
            inputs = {"video_id": video["video_id"], "frame": number}
            detections = found(masks, [0.9] * len(truth), wrong)
            ids = [one["track_id"] for one in truth]
            seen.append(bounds.SeenFrame(inputs, detections, masks, ids, classes))
    assert bounds.score(cfg, seen, bounds.all_with_true_classes)["AP"] == pytest.approx(100)
    figures = bounds.score(cfg, seen, bounds.all_detections)
    assert figures["AP"] < 50
    assert (figures["identity switches %"], figures["masks found %"]) == (0.0, 100.0)


@pytest.mark.usefixtures("videos")
def test_the_command_follows_as_the_evaluation_does(
    bounds: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["model.decoder.embed_dim=32", "model.decoder.num_queries=4", "model.min_score=0.0"]
    torch.manual_seed(0)
    cfg = bounds.apply_overrides(load_config(CONFIG), overrides)
    model = instantiate(cfg.model).eval()
    torch.nn.init.zeros_(model.decoder.stages[-1].box_head.class_embed.bias)  # scores about a half
    Checkpointer(model, str(tmp_path)).save("weights")
    file = tmp_path / "bounds.json"
    weights = str(tmp_path / "weights.pth")
    assert bounds.main(["--weights", weights, "--json", str(file), *overrides]) == 0
    report = json.loads(file.read_text())
    assert next(iter(report["rows"])) == "tracker as configured" and len(report["rows"]) == 4
    assert report["overrides"] == overrides and "true identities" in capsys.readouterr().out

    evaluator = VideoEvaluator("moving_shapes_val")
    with torch.no_grad():
        for batch in instantiate(cfg.dataloader.test):
            evaluator.process(batch, model(batch))
    results = evaluator.evaluate()
    for name, (task, key) in bounds.FIGURES.items():
        figure = report["rows"]["tracker as configured"][name]
        expected = results[task][key]
        assert figure == (pytest.approx(expected, abs=0.06) if expected == expected else None), name
