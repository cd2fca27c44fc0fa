"""When checkpoints are written, and which are kept."""

import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from detectron2.engine import HookBase

from queryseg.checkpoint.atomic_file import write_atomically

MODES = ("max", "min")
BEST_NAME = "model_best"
_PERIODIC_NAME = re.compile(r"model_(\d{7})\.pth")
_logger = logging.getLogger("queryseg")


class CheckpointHook(HookBase):
    """Saves every `period` iterations and at the end, and deletes old files.

    It runs on all processes, since each has a state of its own to give.

    Args:
        save: writes a checkpoint of the given name.
        output_dir: where the files are.
        period: iterations between two checkpoints; 0 for none but the last.
        max_to_keep: how many of the periodic ones stay.

    Raises:
        ValueError: `max_to_keep` below 1: the newest is needed to resume.
    """

    def __init__(
        self, save: Callable[[str], None], output_dir: str, *, period: int, max_to_keep: int
    ) -> None:
        if max_to_keep < 1:
            raise ValueError(f"train.checkpointer.max_to_keep is {max_to_keep}: keep at least 1")
        self.save = save
        self.output_dir = Path(output_dir)
        self.period = period
        self.max_to_keep = max_to_keep

    def after_step(self) -> None:
        """Save if it is time to."""
        next_iter = self.trainer.iter + 1
        if next_iter == self.trainer.max_iter:
            self.save("model_final")
        elif self.period > 0 and next_iter % self.period == 0:
            self.save(f"model_{self.trainer.iter:07d}")
            self._delete_old()

    def _delete_old(self) -> None:
        found = [(_PERIODIC_NAME.fullmatch(file.name), file) for file in self.output_dir.glob("*")]
        numbered = sorted((int(match[1]), file) for match, file in found if match)
        past = [file for number, file in numbered if number <= self.trainer.iter]
        for file in past[: -self.max_to_keep]:
            file.unlink(missing_ok=True)


class BestCheckpoint:
    """Keeps the weights with the best value of a metric as `model_best.pth`.

    The value stands beside it in `model_best.json`, so that a resumed training goes on from what
    the file on disk really is.

    Args:
        save: writes a checkpoint of the given name.
        output_dir: where the files are.
        metric: name in the evaluation results, task and figure: `"segm/AP"`.
        mode: `"max"` or `"min"`: which values are better.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(
        self, save: Callable[[str], None], output_dir: str, *, metric: str, mode: str
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"train.best_checkpoint.mode is {mode!r}: use one of {MODES}")
        self.save = save
        self.record_file = Path(output_dir, f"{BEST_NAME}.json")
        self.metric = metric
        self.mode = mode
        self.best: float | None = None

    def resume(self) -> None:
        """Take over the best value of the run that is continued."""
        if self.record_file.is_file():
            record = json.loads(self.record_file.read_text())
            if record["metric"] == self.metric:
                self.best = record["value"]

    def update(self, results: Mapping[str, float], iteration: int) -> None:
        """Save if these flattened results are the best so far; without any there is no best."""
        if not results:
            return
        if self.metric not in results:
            _logger.warning(
                "train.best_checkpoint.metric is %r, which the evaluation does not give: "
                "no best checkpoint is kept. It gives %s.",
                self.metric,
                ", ".join(results),
            )
            return
        value = results[self.metric]
        if math.isnan(value) or not self._is_better(value):
            return
        self.best = value
        self.save(BEST_NAME)
        record = {"metric": self.metric, "value": value, "iteration": iteration}
        write_atomically(self.record_file, lambda file: file.write(json.dumps(record).encode()))
        _logger.info("Best %s so far: %.3f, kept as %s.pth", self.metric, value, BEST_NAME)

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        return value > self.best if self.mode == "max" else value < self.best
