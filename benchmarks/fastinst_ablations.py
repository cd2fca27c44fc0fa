#!/usr/bin/env python
"""FastInst's ablations (Tables 2 to 4) on the synthetic shapes: one training per row and seed.

Trainings run side by side, one thread each. A training that has its `results.json` is not repeated,
so the script can be stopped and started again. It prints a table and writes one JSON file:

    python benchmarks/fastinst_ablations.py --jobs 2 --max-iter 1000
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CONFIG = "fastinst/fastinst_tiny.py"


@dataclass(frozen=True)
class Row:
    """One row of an ablation table.

    Attributes:
        table: table of the paper.
        name: what the row changes.
        overrides: on top of `fastinst_tiny`, which has one dual-path layer.
    """

    table: str
    name: str
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """A folder name that is the same whenever the overrides are."""
        return (
            "_".join(o.removeprefix("model.").replace("=", "-") for o in self.overrides) or "base"
        )


ROWS = (
    Row("2", "zero queries", ("model.decoder.queries.kind=zero",)),
    Row("2", "learnable queries", ("model.decoder.queries.kind=learned",)),
    Row("2", "resized queries", ("model.decoder.queries.kind=resized",)),
    Row("2", "IA-guided queries (default)"),
    Row(
        "3",
        "pixel update only, D = 2",
        ("model.decoder.update=pixel_only", "model.decoder.num_layers=2"),
    ),
    Row(
        "3",
        "query update only, D = 2",
        ("model.decoder.update=query_only", "model.decoder.num_layers=2"),
    ),
    Row("3", "dual, query then pixel", ("model.decoder.update=query_then_pixel",)),
    Row("3", "dual, pixel then query (default)"),
    Row("4", "without GT mask guidance", ("model.gt_guidance=false",)),
    Row("4", "with GT mask guidance (default)"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write and print the results."""
    args = parse_arguments(argv)
    runs = {
        (row.overrides, seed): args.output / row.folder / f"seed{seed}"
        for row in ROWS
        for seed in range(args.seeds)
    }
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [
            pool.submit(train, folder, overrides, seed, args.max_iter)
            for (overrides, seed), folder in runs.items()
        ]
        for job in jobs:
            job.result()
    table = [
        summarise(row, [runs[row.overrides, seed] for seed in range(args.seeds)]) for row in ROWS
    ]
    report = {
        "config": CONFIG,
        "max_iter": args.max_iter,
        "seeds": args.seeds,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
        "rows": table,
    }
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(as_markdown(table))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/fastinst_ablations"))
    parser.add_argument(
        "--results", type=Path, default=Path("benchmarks/results/fastinst_ablations.json")
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-iter", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args(argv)


def train(folder: Path, overrides: Sequence[str], seed: int, max_iter: int) -> None:
    """One training in a process of its own, unless its results are there."""
    if (folder / "results.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "queryseg.tools.train", "--config-file", CONFIG, *overrides]
    command += [f"train.output_dir={folder}", f"train.seed={seed}", f"train.max_iter={max_iter}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(folder / "output.txt", "w") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)


def summarise(row: Row, folders: Sequence[Path]) -> dict[str, object]:
    """Mask AP of each seed, mean and standard deviation."""
    scores = [json.loads((f / "results.json").read_text())["segm"]["AP"] for f in folders]
    return {
        "table": row.table,
        "row": row.name,
        "overrides": list(row.overrides),
        "segm_AP": scores,
        "mean": statistics.mean(scores),
        "std": statistics.stdev(scores) if len(scores) > 1 else 0.0,
    }


def as_markdown(table: Sequence[dict[str, object]]) -> str:
    """The rows as a Markdown table."""
    lines = ["| table | row | segm AP | seeds |", "|---|---|---|---|"]
    for entry in table:
        seeds = ", ".join(f"{score:.1f}" for score in entry["segm_AP"])  # type: ignore[attr-defined]
        lines.append(
            f"| {entry['table']} | {entry['row']} "
            f"| {entry['mean']:.1f} ± {entry['std']:.1f} | {seeds} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
