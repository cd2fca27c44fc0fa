"""Evaluation during and after training: when it runs and what becomes of its results."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from tabulate import tabulate

from queryseg.checkpoint.atomic_file import write_atomically

Results = Mapping[str, Any]


class EvaluationHook(HookBase):
    """Evaluates every `period` iterations and once the training is complete, never after an error.

    Args:
        evaluate: evaluates the model and deals with the results.
        period: iterations between two evaluations; 0 for none but the last.
    """

    def __init__(self, evaluate: Callable[[], None], period: int) -> None:
        self.evaluate = evaluate
        self.period = period

    def after_step(self) -> None:
        """Evaluate if it is time to; the last time belongs to `after_train`."""
        next_iter = self.trainer.iter + 1
        if self.period > 0 and next_iter % self.period == 0 and next_iter < self.trainer.max_iter:
            self._run()

    def after_train(self) -> None:
        """Evaluate the final model."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._run()

    def _run(self) -> None:
        self.evaluate()
        comm.synchronize()  # the main process takes longer: it computes the figures


def flatten_results(results: Results) -> dict[str, float]:
    """`{"segm": {"AP": 1.0}}` to `{"segm/AP": 1.0}`."""
    flat = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            inner = flatten_results(value)
            flat.update({f"{key}/{name}": figure for name, figure in inner.items()})
        else:
            flat[str(key)] = float(value)
    return flat


def results_table(results: Results) -> str:
    """The figures of each task as a table; those of single classes (`AP-person`) are left out."""
    rows = []
    for task, figures in results.items():
        if isinstance(figures, Mapping):
            rows.append(
                {"task": task}
                | {name: value for name, value in figures.items() if not name.startswith("AP-")}
            )
    return tabulate(rows, headers="keys", floatfmt=".2f", tablefmt="pipe", missingval="-")


def write_results(results: Results, file: Path) -> None:
    """Write results as JSON, atomically; a figure that is not finite becomes null."""
    text = json.dumps(_plain(results), indent=2, allow_nan=False)
    write_atomically(file, lambda stream: stream.write(text.encode()))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    number = float(value)
    return number if math.isfinite(number) else None
