"""Progress of a training: a bar on a terminal, one line now and then anywhere else."""

import datetime
import logging
import os
import sys
from contextlib import ExitStack
from typing import TextIO

import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from queryseg.engine.logs import LOGGERS

WINDOW = 20
MAX_TERMS = 6
_logger = logging.getLogger("queryseg")


class ProgressHook(HookBase):
    """Says how far the training is, how the loss falls and when it will be done.

    Args:
        period: iterations between two lines (or two updates of the figures beside the bar).
        show_bar: draw a bar; None draws one if the error stream is a terminal.
    """

    def __init__(self, period: int, show_bar: bool | None = None) -> None:
        self.period = max(period, 1)
        self.show_bar = has_size(sys.stderr) if show_bar is None else show_bar
        self._bar: tqdm | None = None
        self._cleanup = ExitStack()

    def before_train(self) -> None:
        """Draw the bar; log lines go above it from now on."""
        if not self.show_bar:
            return
        names = [logging.getLogger(name) for name in LOGGERS]
        self._cleanup.enter_context(logging_redirect_tqdm(names))
        self._bar = tqdm(
            total=self.trainer.max_iter,
            initial=self.trainer.start_iter,
            desc="training",
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def after_step(self) -> None:
        """Move the bar, or write a line if it is time to."""
        next_iter = self.trainer.iter + 1
        due = next_iter % self.period == 0 or next_iter == self.trainer.max_iter
        if self._bar is not None:
            if due:
                self._bar.set_postfix_str(describe_losses(self.trainer.storage), refresh=False)
            self._bar.update()
            if next_iter == self.trainer.max_iter:
                self._close()
        elif due:
            _logger.info(progress_line(self.trainer.storage, next_iter, self.trainer.max_iter))

    def after_train(self) -> None:
        """Close the bar after an error."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._cleanup.close()


def has_size(stream: TextIO) -> bool:
    """Whether a stream is a terminal that a bar fits on; some containers give one without size."""
    return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0


def progress_line(storage: EventStorage, done: int, total: int) -> str:
    """One line: iteration, losses (median of 20), learning rate, times, memory, time left."""
    parts = [f"iter {done}/{total}", describe_losses(storage)]
    latest = storage.latest()
    if "lr" in latest:
        parts.append(f"lr {latest['lr'][0]:.3g}")
    if "time" in latest:
        seconds = storage.history("time").median(1000)
        parts.append(f"{seconds:.3f} s/it (data {_median(storage, 'data_time'):.3f})")
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    if "time" in latest:
        parts.append(f"ETA {datetime.timedelta(seconds=int(seconds * (total - done)))}")
    return "  ".join(parts)


def describe_losses(storage: EventStorage) -> str:
    """The total and its main terms; those of intermediate layers (`loss_mask_0`) are left out."""
    names = [name for name in storage.histories() if name.startswith("loss_")]
    main = [name for name in names if not name.rpartition("_")[2].isdigit()][:MAX_TERMS]
    terms = ", ".join(f"{name[5:]} {_median(storage, name):.3g}" for name in main)
    total = f"loss {_median(storage, 'total_loss'):.4g}"
    return f"{total} ({terms})" if terms else total


def _median(storage: EventStorage, name: str) -> float:
    return storage.history(name).median(WINDOW)
