#!/usr/bin/env python
"""What the refinement adds to boundary AP: the tiny model with and without it, on synthetic shapes.

Without it (`refiner=null`) everything else is equal: data, steps, seed. The set (stars, gears and
rings told by colour) is written on the first run. Prints a table and writes one JSON file:

    python benchmarks/mask_transfiner_boundary.py --jobs 2
"""

import argparse
import os
import sys
from collections.abc import Sequence

from training_runs import Overrides, TrainingRuns, add_arguments, one_by_one, with_deviation

from queryseg.data.shapes.spec import ShapesSpec
from queryseg.data.shapes.writer import write_shapes
from queryseg.engine import load_config

CONFIG = "mask_transfiner/mask_transfiner_tiny.py"
VARIANTS: dict[str, Overrides] = {
    "refined": (),
    "unrefined": ("model.roi_heads.mask_head.refiner=null",),
}
SHAPES = ShapesSpec(
    train=400,
    val=60,
    classes=("star", "gear", "ring"),
    min_objects=1,
    max_objects=3,
    min_radius=18.0,
    max_radius=40.0,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, "mask_transfiner_boundary", load_config(CONFIG).train.max_iter)
    args = parser.parse_args(argv)
    root = args.output / "datasets"
    write_shapes(root / "shapes", SHAPES)
    os.environ["DETECTRON2_DATASETS"] = str(root)
    runs = TrainingRuns(CONFIG, args, VARIANTS.values())
    runs.run()
    scores = {
        name: {task: runs.scores(overrides, task) for task in ("boundary", "segm")}
        for name, overrides in VARIANTS.items()
    }
    runs.save(
        [
            {"row": name, "overrides": list(VARIANTS[name])}
            | {f"{task}_AP": values for task, values in tasks.items()}
            for name, tasks in scores.items()
        ]
    )
    sys.stdout.write(as_markdown(scores))


def as_markdown(scores: dict[str, dict[str, list[float]]]) -> str:
    """Both models and what lies between them, seed by seed."""
    gained = {
        task: [better - base for better, base in zip(values, scores["unrefined"][task])]
        for task, values in scores["refined"].items()
    }
    lines = ["| model | boundary AP | seeds | mask AP | seeds |", "|---|---|---|---|---|"]
    for name, tasks in {**scores, "gained": gained}.items():
        cells = [f"{with_deviation(values)} | {one_by_one(values)}" for values in tasks.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
