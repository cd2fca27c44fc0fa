#!/usr/bin/env python
"""What bounds the AP of a QueryInst-VIS: identities, the choice of detections, classes, or masks.

Runs a trained model over the frames of a set once and scores the same detections several times:
followed by the tracker as it is configured, then with the identities that the ground truth gives
them, then all of them instead of those that the tracker gets, then with true classes too. What is
left below 100 is the fit of the masks, and the order of the scores.

    python benchmarks/vis_bounds.py --weights output/vis/model_final.pth
    python benchmarks/vis_bounds.py --weights output/vis/model_final.pth --third-split

The second form draws 60 videos of a third split: those to tune a tracker on, so that the validation
videos stay unseen.
"""

import queryseg  # noqa: F401, I001  (must come before detectron2)

import argparse
import copy
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.config import instantiate
from detectron2.structures import Instances
from scipy.optimize import linear_sum_assignment
from tabulate import tabulate

from queryseg.checkpoint import Checkpointer
from queryseg.data.masks import decode
from queryseg.data.moving_shapes import MovingShapesSpec, write_moving_shapes
from queryseg.engine import apply_overrides, load_config
from queryseg.evaluation import VideoEvaluator
from queryseg.projects.queryinst.vis_model import QueryInstVIS
from queryseg.tools.console import run_tool, say
from queryseg.tools.op_benchmark.machine import describe_machine

LOWEST_SCORE = 0.05  # of "all detections"
THIRD_SPLIT = MovingShapesSpec(train=1, val=60, seed=1)
FIGURES = {
    "AP": ("vis", "AP"),
    "AP50": ("vis", "AP50"),
    "AP75": ("vis", "AP75"),
    "identity switches %": ("identity", "IDSW"),
    "crossings kept %": ("identity", "crossings-kept"),
    "masks found %": ("identity", "found"),
}


@dataclass(frozen=True)
class SeenFrame:
    """A frame with what was detected and what there is.

    Attributes:
        inputs: what the model got, with `video_id` and `frame`.
        detections: all of them, by falling score.
        masks: bool (n, H, W), the true ones.
        track_ids: of the true masks.
        classes: of the true masks.
    """

    inputs: dict[str, Any]
    detections: Instances
    masks: np.ndarray
    track_ids: list[int]
    classes: list[int]


Follow = Callable[[SeenFrame], Instances]


def see_frames(cfg: Any, model: QueryInstVIS) -> list[SeenFrame]:
    """Detect in every frame of the test set."""
    model = copy.copy(model)
    model.min_score, model.nms_iou = LOWEST_SCORE, 1.0
    videos = {video["video_id"]: video for video in instantiate(cfg.dataloader.test.dataset)}
    seen = []
    with torch.no_grad():
        for (inputs,) in instantiate(cfg.dataloader.test):
            video = videos[inputs["video_id"]]
            truth = video["annotations"][inputs["frame"]]
            masks = [decode(one["segmentation"], video["height"], video["width"]) for one in truth]
            seen.append(
                SeenFrame(
                    {key: inputs[key] for key in ("video_id", "frame")},
                    model.infer([inputs])[0]["instances"].to("cpu"),
                    np.array(masks, dtype=bool).reshape(-1, video["height"], video["width"]),
                    [one["track_id"] for one in truth],
                    [one["category_id"] for one in truth],
                )
            )
    return seen


def tracked_by(model: QueryInstVIS, *, true_association: bool) -> Follow:
    """What the tracker gets of a frame, followed by it or by the ground truth."""

    def follow(frame: SeenFrame) -> Instances:
        detections = frame.detections
        detections = detections[detections.scores >= model.min_score]
        detections = model.without_doubles(detections)
        if true_association:
            return with_true_identities(frame, detections)
        if frame.inputs["frame"] == 0:
            model.tracker.reset()
        return model.tracker(detections)

    return follow


def all_detections(frame: SeenFrame) -> Instances:
    """Every object with the detection that fits it best, whatever its score."""
    return with_true_identities(frame, frame.detections)


def all_with_true_classes(frame: SeenFrame) -> Instances:
    """The same, and no class is wrong."""
    return with_true_identities(frame, frame.detections, true_classes=True)


def with_true_identities(
    frame: SeenFrame, detections: Instances, *, true_classes: bool = False
) -> Instances:
    """The detections that show an object, under its number; those that show none are left out.

    Objects and detections are assigned to each other so that their overlaps sum up to most.
    """
    overlaps = np.zeros((len(frame.masks), len(detections)))
    if overlaps.size:
        theirs, own = encode(detections.pred_masks.numpy()), encode(frame.masks)
        overlaps = np.asarray(mask_util.iou(theirs, own, [0] * len(own))).T
    rows, columns = linear_sum_assignment(-overlaps)
    pairs = [(row, column) for row, column in zip(rows, columns) if overlaps[row, column] > 0]
    chosen = detections[torch.tensor([column for _, column in pairs], dtype=torch.int64)]
    chosen.pred_track_ids = torch.tensor([frame.track_ids[row] for row, _ in pairs])
    if true_classes:
        chosen.pred_classes = torch.tensor([frame.classes[row] for row, _ in pairs])
    return chosen


def encode(masks: np.ndarray) -> list[dict[str, Any]]:
    """RLEs of bool (n, H, W)."""
    return mask_util.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))


def score(cfg: Any, seen: Iterable[SeenFrame], follow: Follow) -> dict[str, float | None]:
    """The figures of one way to follow what was seen; None where there was nothing to count."""
    evaluator = VideoEvaluator(cfg.dataloader.evaluator.dataset_name)
    for frame in seen:
        evaluator.process([frame.inputs], [{"instances": follow(frame)}])
    results = evaluator.evaluate()
    figures = {name: results[task][key] for name, (task, key) in FIGURES.items()}
    return {name: round(x, 1) if math.isfinite(x) else None for name, x in figures.items()}


def measure(args: argparse.Namespace) -> dict[str, dict[str, float | None]]:
    """The figures of every row by its name."""
    if args.third_split:
        root = args.output / "datasets"
        write_moving_shapes(root / "moving_shapes", THIRD_SPLIT)
        os.environ["DETECTRON2_DATASETS"] = str(root)
    cfg = apply_overrides(load_config(args.config_file), args.opts)
    model = instantiate(cfg.model).eval()
    Checkpointer(model).load(args.weights)
    seen = see_frames(cfg, model)
    rows = {
        "tracker as configured": tracked_by(model, true_association=False),
        "true identities": tracked_by(model, true_association=True),
        "true identities, all detections": all_detections,
        "true identities and classes, all detections": all_with_true_classes,
    }
    return {name: score(cfg, seen, follow) for name, follow in rows.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="queryinst/queryinst_vis_tiny.py")
    parser.add_argument("--weights", required=True, help="a checkpoint")
    parser.add_argument("--third-split", action="store_true", help="on videos to tune a tracker on")
    parser.add_argument("--output", type=Path, default=Path("output/vis_bounds"))
    parser.add_argument("--json", type=Path, help="a file to write the figures to as well")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    args = parser.parse_intermixed_args(argv)
    rows = measure(args)
    table = [{"": name, **figures} for name, figures in rows.items()]
    say(tabulate(table, headers="keys", tablefmt="pipe", floatfmt=".1f", missingval="-"))
    if args.json:
        report = {
            "config": args.config_file,
            "overrides": args.opts,
            "videos": "a third split" if args.third_split else "validation",
            "machine": describe_machine("cpu"),
            "rows": rows,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run_tool(main)
