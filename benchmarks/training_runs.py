"""Trainings of one config under several overrides and seeds, side by side, one thread each.

A training that has its `results.json` is not repeated, so a benchmark can be stopped and started
again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from queryseg.tools.op_benchmark.machine import processor

Overrides = tuple[str, ...]


class TrainingRuns:
    """The trainings of a benchmark.

    Args:
        config: name of the config.
        args: what `add_arguments` declares.
        variants: overrides of each variant.
    """

    def __init__(self, config: str, args: argparse.Namespace, variants: Iterable[Overrides]):
        self.config = config
        self.args = args
        self.variants = tuple(dict.fromkeys(variants))

    def folder(self, overrides: Overrides, seed: int) -> Path:
        """Where a training writes; the same whenever its overrides are."""
        words = [one.removeprefix("model.").replace("=", "-") for one in overrides]
        return self.args.output / ("_".join(words) or "base") / f"seed{seed}"

    def run(self) -> None:
        """Train what is missing."""
        # Seed by seed: what is there of a run that was stopped can already be compared.
        runs = [(one, seed) for seed in range(self.args.seeds) for one in self.variants]
        with ThreadPoolExecutor(self.args.jobs) as pool:
            list(pool.map(lambda run: self._train(*run), runs))

    def _train(self, overrides: Overrides, seed: int) -> None:
        words = [*overrides, f"train.seed={seed}"]
        if self.args.max_iter is not None:
            words.append(f"train.max_iter={self.args.max_iter}")
        train_once(self.config, self.folder(overrides, seed), words)

    def scores(self, overrides: Overrides, task: str) -> list[float]:
        """AP of every seed."""
        files = [self.folder(overrides, seed) / "results.json" for seed in range(self.args.seeds)]
        return [json.loads(file.read_text())[task]["AP"] for file in files]

    def save(self, rows: Sequence[dict[str, object]]) -> None:
        """Write the results and how they came about."""
        report = {
            "config": self.config,
            "max_iter": self.args.max_iter,
            "seeds": self.args.seeds,
            "machine": f"{processor()}, {os.cpu_count()} cores",
            "date": time.strftime("%Y-%m-%d"),
            "rows": list(rows),
        }
        self.args.results.parent.mkdir(parents=True, exist_ok=True)
        self.args.results.write_text(json.dumps(report, indent=1) + "\n")


def train_once(config: str, folder: Path, words: Sequence[str]) -> None:
    """One training in a process of its own, on one thread, unless its results are there.

    Args:
        config: name of the config.
        folder: where it writes, its log as `output.txt`.
        words: more of the command line.
    """
    if (folder / "results.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "queryseg.tools.train", "--config-file", config]
    command += [*words, f"train.output_dir={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(folder / "output.txt", "w") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=log, check=True)


def add_arguments(parser: argparse.ArgumentParser, name: str, max_iter: int | None = None) -> None:
    """The command line of a benchmark that trains.

    Args:
        parser: takes the arguments in.
        name: of the benchmark, for its folder and its file of results.
        max_iter: steps of a training; None: as many as the config says.
    """
    parser.add_argument("--output", type=Path, default=Path("output") / name)
    parser.add_argument("--results", type=Path, default=Path(f"benchmarks/results/{name}.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-iter", type=int, default=max_iter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)


def with_deviation(scores: Sequence[float]) -> str:
    """Mean and standard deviation.

    >>> with_deviation([1.0, 2.0, 3.0])
    '2.0 ± 1.0'
    """
    deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return f"{statistics.mean(scores):.1f} ± {deviation:.1f}"


def one_by_one(scores: Sequence[float]) -> str:
    """The scores of the seeds, in their order."""
    return ", ".join(f"{score:.1f}" for score in scores)
