"""Scalars and pictures that training produces, and the writers that carry them out."""

import datetime
import json
import logging
import os
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from fvcore.common.history_buffer import HistoryBuffer

from detectron2.utils.file_io import PathManager

_CURRENT_STORAGE_STACK: list["EventStorage"] = []


def get_event_storage() -> "EventStorage":
    """The innermost `EventStorage` that is open."""
    assert _CURRENT_STORAGE_STACK, (
        "get_event_storage() works only inside `with EventStorage(...)`: no storage is open."
    )
    return _CURRENT_STORAGE_STACK[-1]


def has_event_storage() -> bool:
    """Whether an `EventStorage` is open."""
    return bool(_CURRENT_STORAGE_STACK)


class EventStorage:
    """Keeps what is put into it by name and iteration; open it with `with`."""

    def __init__(self, start_iter: int = 0) -> None:
        self.iter = start_iter
        self._history: defaultdict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._smoothing_hints: dict[str, bool] = {}
        self._latest_scalars: dict[str, tuple[float, int]] = {}
        self._current_prefix = ""
        self._vis_data: list[tuple[str, Any, int]] = []
        self._histograms: list[dict[str, Any]] = []

    def __enter__(self) -> "EventStorage":
        _CURRENT_STORAGE_STACK.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        closed = _CURRENT_STORAGE_STACK.pop()
        assert closed is self

    @property
    def iter(self) -> int:
        """The iteration that new data belongs to; the trainer keeps it equal to its own."""
        return self._iter

    @iter.setter
    def iter(self, value: int) -> None:
        self._iter = int(value)

    @property
    def iteration(self) -> int:
        """Older name of `iter`."""
        return self._iter

    def step(self) -> None:
        """Go on to the next iteration."""
        self._iter += 1

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put `name/` before every scalar name used inside the `with` block."""
        outer = self._current_prefix
        self._current_prefix = name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._current_prefix = outer

    def put_scalar(
        self, name: str, value: Any, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Add one value to the history of `name`.

        Args:
            name: the scalar's name.
            value: anything `float` accepts.
            smoothing_hint: whether writers should smooth it (a noisy loss) or not (a result). It
                has to be the same in all calls for one name.
            cur_iter: iteration it belongs to; `iter` unless given.
        """
        name = self._current_prefix + name
        cur_iter = self._iter if cur_iter is None else cur_iter
        value = float(value)
        hint = self._smoothing_hints.setdefault(name, smoothing_hint)
        assert hint == smoothing_hint, f"Scalar {name} was put before with smoothing_hint={hint}."
        self._history[name].update(value, cur_iter)
        self._latest_scalars[name] = (value, cur_iter)

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **scalars: Any
    ) -> None:
        """Add one value to the history of each keyword."""
        for name, value in scalars.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Keep an RGB image (3, H, W), uint8 or float in [0, 1], for TensorBoard."""
        self._vis_data.append((img_name, img_tensor, self._iter))

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        """Keep the histogram of a tensor for TensorBoard."""
        low, high = hist_tensor.min().item(), hist_tensor.max().item()
        edges = torch.linspace(low, high, steps=bins + 1, dtype=torch.float32)
        self._histograms.append(
            {
                "tag": hist_name,
                "min": low,
                "max": high,
                "num": len(hist_tensor),
                "sum": hist_tensor.sum().item(),
                "sum_squares": hist_tensor.square().sum().item(),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": torch.histc(hist_tensor, bins=bins).tolist(),
                "global_step": self._iter,
            }
        )

    def clear_images(self) -> None:
        """Forget the images (after they were written)."""
        self._vis_data = []

    def clear_histograms(self) -> None:
        """Forget the histograms (after they were written)."""
        self._histograms = []

    def history(self, name: str) -> HistoryBuffer:
        """All values of `name`; KeyError if there are none."""
        if name not in self._history:
            raise KeyError(f"No scalar called {name} was put into this storage.")
        return self._history[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """All values of every scalar."""
        return self._history

    def latest(self) -> dict[str, tuple[float, int]]:
        """Latest value and its iteration, for every scalar."""
        return self._latest_scalars

    def smoothing_hints(self) -> dict[str, bool]:
        """Whether writers should smooth, for every scalar."""
        return self._smoothing_hints

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Like `latest`, with the median over the last `window_size` iterations where hinted."""
        latest = list(self._latest_scalars.items())  # a copy: another thread may be adding
        return {
            name: (self._smoothed(name, window_size) if self._smoothing_hints[name] else value, at)
            for name, (value, at) in latest
        }

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """Number of trailing values that belong to the last `window_size` iterations."""
        values = self._history[name].values()
        first = values[-1][1] - window_size + 1
        samples = 0
        while samples < len(values) and values[-1 - samples][1] >= first:
            samples += 1
        return samples

    def _smoothed(self, name: str, window_size: int) -> float:
        return self._history[name].median(self.count_samples(name, window_size))


class EventWriter(ABC):
    """Takes what is new in the open `EventStorage` and writes it somewhere."""

    @abstractmethod
    def write(self) -> None:
        """Write what came since the last call."""

    def close(self) -> None:  # noqa: B027  (most writers hold nothing open)
        """Release files."""


class JSONWriter(EventWriter):
    """Appends one JSON object per iteration, on one line, to a file."""

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        """Open `json_file`; smoothed scalars are medians over `window_size` iterations."""
        self._file_handle = PathManager.open(json_file, "a")
        self._window_size = window_size
        self._last_write = -1

    def write(self) -> None:
        """Write the scalars of iterations after the last one written."""
        lines: defaultdict[int, dict[str, float]] = defaultdict(dict)
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        for name, (value, at) in latest.items():
            if at > self._last_write:
                lines[at][name] = value
        for at, scalars in lines.items():
            line = json.dumps({**scalars, "iteration": at}, sort_keys=True)
            self._file_handle.write(line + "\n")
        self._last_write = max(lines, default=self._last_write)
        self._file_handle.flush()
        if hasattr(self._file_handle, "fileno"):  # remote files may have none
            os.fsync(self._file_handle.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file_handle.close()


class TensorboardXWriter(EventWriter):
    """Writes scalars, images and histograms for TensorBoard; makes no file before the first one."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        """Write to `log_dir`; `kwargs` go to `torch.utils.tensorboard.SummaryWriter`."""
        self._window_size = window_size
        self._writer_args = {"log_dir": log_dir, **kwargs}
        self._last_write = -1

    @cached_property
    def _writer(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(**self._writer_args)

    def write(self) -> None:
        """Write the scalars of later iterations than before, and all images and histograms."""
        storage = get_event_storage()
        last_write = self._last_write
        for name, (value, at) in storage.latest_with_smoothing_hint(self._window_size).items():
            if at > self._last_write:
                self._writer.add_scalar(name, value, at)
                last_write = max(last_write, at)
        self._last_write = last_write

        for name, image, at in storage._vis_data:
            self._writer.add_image(name, image, at)
        storage.clear_images()
        for histogram in storage._histograms:
            self._writer.add_histogram_raw(**histogram)
        storage.clear_histograms()

    def close(self) -> None:
        """Close the event file, if one was made."""
        if "_writer" in self.__dict__:
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Logs one line: ETA, iteration, losses, times, learning rate, memory (scripts grep it)."""

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        """Give no ETA without `max_iter`; losses are medians over `window_size` iterations."""
        self.logger = logging.getLogger("detectron2.utils.events")
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None  # iteration, time

    def write(self) -> None:
        """Log the line, unless training has ended."""
        storage = get_event_storage()
        if storage.iter == self._max_iter:
            return
        times = self._times(storage)
        lr = f"{storage.history('lr').latest():.5g}" if "lr" in storage.latest() else "N/A"
        eta = self._get_eta(storage)
        losses = self._medians(storage, "loss")
        metrics = self._medians(storage, "[metric]")
        memory = ""
        if torch.cuda.is_available():
            memory = f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M"
        self.logger.info(
            f" {f'eta: {eta}  ' if eta else ''}iter: {storage.iter}  {losses}  {metrics}  "
            f"{times} lr: {lr}  {memory}"
        )

    def _times(self, storage: EventStorage) -> str:
        fields: dict[str, float] = {}
        if "time" in storage.latest():
            history = storage.history("time")
            fields["time"] = history.global_avg()
            fields["last_time"] = history.latest()
        if "data_time" in storage.latest():
            history = storage.history("data_time")
            fields["data_time"] = history.avg(storage.count_samples("data_time", self._window_size))
            fields["last_data_time"] = history.latest()
        return "".join(f"{name}: {value:.4f}  " for name, value in fields.items())

    def _medians(self, storage: EventStorage, part_of_name: str) -> str:
        return "  ".join(
            f"{name}: {storage._smoothed(name, self._window_size):.4g}"
            for name in list(storage.histories())  # a copy: another thread may be adding
            if part_of_name in name
        )

    def _get_eta(self, storage: EventStorage) -> str | None:
        """Remaining time from the timer's median, or from the time since the last line."""
        if self._max_iter is None:
            return None
        remaining = self._max_iter - storage.iter - 1
        if "time" in storage.latest():
            seconds = storage.history("time").median(1000) * remaining
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            return str(datetime.timedelta(seconds=int(seconds)))
        now, before = time.perf_counter(), self._last_write
        self._last_write = (storage.iter, now)
        if before is None or before[0] == storage.iter:
            return None
        seconds = (now - before[1]) / (storage.iter - before[0]) * remaining
        return str(datetime.timedelta(seconds=int(seconds)))
