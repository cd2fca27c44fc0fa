"""Loggers of the framework: coloured on the terminal, plain in a file."""

import atexit
import functools
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from types import FrameType
from typing import IO

from tabulate import tabulate
from termcolor import colored

from detectron2.utils.file_io import PathManager

__all__ = ["log_every_n_seconds", "log_first_n", "setup_logger"]

_DATE_FORMAT = "%m/%d %H:%M:%S"
_REMOTE_LOG_BUFFER_BYTES = 2**20

_log_counter: Counter[Hashable] = Counter()
_log_time: dict[Hashable, float] = {}


class _ColorfulFormatter(logging.Formatter):
    """Shortens the logger's root name and marks warnings and errors in red."""

    def __init__(self, root_name: str, abbrev_name: str) -> None:
        head = colored("[%(asctime)s %(name)s]: ", "green")
        super().__init__(head + "%(message)s", datefmt=_DATE_FORMAT)
        self._root = f"{root_name}."
        self._short = f"{abbrev_name}." if abbrev_name else ""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.name = record.name.replace(self._root, self._short)
        line = super().formatMessage(record)
        if record.levelno == logging.WARNING:
            return colored("WARNING", "red", attrs=["blink"]) + " " + line
        if record.levelno in (logging.ERROR, logging.CRITICAL):
            return colored("ERROR", "red", attrs=["blink", "underline"]) + " " + line
        return line


@functools.lru_cache  # the same call twice must not add the handlers twice
def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Set a logger to DEBUG and give it a terminal handler (rank 0) and a file handler.

    Args:
        output: file (ends in .txt or .log) or folder (then its log.txt) to append to; other ranks
            than 0 add `.rankN` to the file name.
        distributed_rank: rank of this process.
        color: whether the terminal's lines have colours.
        name: the logger's name.
        abbrev_name: what replaces `name` in the lines; "d2" for "detectron2" unless given.
        enable_propagation: whether records go on to the parent logger.
        configure_stdout: whether to write to the terminal at all.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    plain = logging.Formatter(
        "[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt=_DATE_FORMAT
    )

    if configure_stdout and distributed_rank == 0:
        if abbrev_name is None:
            abbrev_name = "d2" if name == "detectron2" else name
        terminal = logging.StreamHandler(sys.stdout)
        terminal.setLevel(logging.DEBUG)
        terminal.setFormatter(_ColorfulFormatter(name, abbrev_name) if color else plain)
        logger.addHandler(terminal)

    if output is not None:
        is_file = output.endswith((".txt", ".log"))
        file_name = output if is_file else os.path.join(output, "log.txt")
        if distributed_rank > 0:
            file_name += f".rank{distributed_rank}"
        PathManager.mkdirs(os.path.dirname(file_name))
        file_handler = logging.StreamHandler(_cached_log_stream(file_name))
        file_handler.setLevel(logging.DEBUG)
        file_handler.setFormatter(plain)
        logger.addHandler(file_handler)
    return logger


@functools.cache  # loggers that share a file share its stream
def _cached_log_stream(file_name: str) -> IO[str]:
    buffering = _REMOTE_LOG_BUFFER_BYTES if "://" in file_name else -1
    stream = PathManager.open(file_name, "a", buffering=buffering)
    atexit.register(stream.close)
    return stream


def _find_caller() -> tuple[str, tuple[Hashable, ...]]:
    """Module name and place (file, line, function) of the code that called into this file."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    assert frame is not None
    module = frame.f_globals["__name__"]
    code = frame.f_code
    return (
        "detectron2" if module == "__main__" else module,
        (code.co_filename, frame.f_lineno, code.co_name),
    )


def log_first_n(
    lvl: int,
    msg: str,
    n: int = 1,
    *,
    name: str | None = None,
    key: str | tuple[str, ...] = "caller",
) -> None:
    """Log only the first `n` times.

    Args:
        lvl: logging level.
        msg: the message.
        n: how often it may be logged.
        name: the logger's name; the caller's module unless given.
        key: what makes two calls the same: "caller", "message", or both as a tuple.
    """
    module, place = _find_caller()
    keys = (key,) if isinstance(key, str) else key
    assert keys, "key must name at least one of 'caller' and 'message'"
    identity = (place if "caller" in keys else None, msg if "message" in keys else None)
    _log_counter[identity] += 1
    if _log_counter[identity] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n_seconds(lvl: int, msg: str, n: float = 1, *, name: str | None = None) -> None:
    """Log at most once in `n` seconds from the same place."""
    module, place = _find_caller()
    now = time.monotonic()
    if place not in _log_time or now - _log_time[place] >= n:
        logging.getLogger(name or module).log(lvl, msg)
        _log_time[place] = now


def create_small_table(small_dict: Mapping[str, float]) -> str:
    """Return a one-row table with the mapping's keys as headers."""
    return tabulate(
        [list(small_dict.values())],
        headers=list(small_dict),
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )
