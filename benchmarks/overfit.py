#!/usr/bin/env python
"""Can every method learn four photos by heart? Losses and mask AP on the images it trains on.

Takes the first images of a set in COCO format and trains the tiny config of each method on them,
without augmentation. A training that has its `results.json` is not repeated:

    python benchmarks/overfit.py --json path/to/annotations.json --images path/to/images
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_runs import train_once

from queryseg.tools.op_benchmark.machine import describe_machine

CONFIGS = {
    "fastinst": "fastinst/fastinst_tiny.py",
    "queryinst": "queryinst/queryinst_tiny.py",
    "soit": "soit/soit_tiny.py",
    "detector": "detectors/hdetr_tiny.py",
    "mask_frozen_detr": "mask_frozen_detr/mask_frozen_detr_tiny.py",
    "mask_transfiner": "mask_transfiner/mask_transfiner_tiny.py",
}
LAST_STEPS = 10  # whose mean is the final loss


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, then write and print the results."""
    args = parse_arguments(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    subset = args.output / "subset.json"
    write_subset(args.json, subset, args.count)
    rows = {}
    for method in args.method or CONFIGS:
        folder = args.output / method
        train(method, folder, subset, args)
        rows[method] = summarise(folder)
        sys.stdout.write(f"{method:<18} {rows[method]}\n")
    report = {
        "images": args.count,
        "max_iter": args.max_iter,
        "machine": describe_machine("cpu"),
        "rows": rows,
    }
    args.results.write_text(json.dumps(report, indent=1) + "\n")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="annotations in COCO format")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--count", type=int, default=4, help="how many images")
    parser.add_argument("--method", action="append", choices=CONFIGS, help="only this (repeatable)")
    parser.add_argument("--max-iter", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path("output/overfit"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/overfit.json"))
    return parser.parse_args(argv)


def write_subset(source: Path, target: Path, count: int) -> None:
    """The annotations of the first `count` images."""
    content: dict[str, Any] = json.loads(source.read_text())
    content["images"] = content["images"][:count]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    target.write_text(json.dumps(content))


def train(method: str, folder: Path, subset: Path, args: argparse.Namespace) -> None:
    """Train a method on the images that it is judged by."""
    words = ["--train-json", str(subset), "--train-images", str(args.images)]
    words += ["--val-json", str(subset), "--val-images", str(args.images)]
    overrides = {
        "train.max_iter": args.max_iter,
        "train.total_batch_size": args.count,
        "train.log_period": 1,
        "dataloader.train.mapper.augmentations": "${dataloader.test.mapper.augmentations}",
    }
    if method == "mask_frozen_detr":
        overrides["train.init_checkpoint"] = args.output / "detector/model_final.pth"
    train_once(CONFIGS[method], folder, [*words, *(f"{k}={v}" for k, v in overrides.items())])


def summarise(folder: Path) -> dict[str, float]:
    """First and last loss, how far it fell, AP, and the time of the steps."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    last = sum(losses[-LAST_STEPS:]) / LAST_STEPS
    results = json.loads((folder / "results.json").read_text())
    steps = [line["time"] for line in lines if "time" in line]
    return {
        "first_loss": round(losses[0], 2),
        "last_loss": round(last, 2),
        "fallen_percent": round(100 * (1 - last / losses[0]), 1),
        **{f"{task}_AP": round(figures["AP"], 1) for task, figures in results.items()},
        "seconds": round(sum(steps), 1),
    }


if __name__ == "__main__":
    main()
