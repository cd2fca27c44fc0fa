"""Where the words of a run go: short lines to the console, everything to a file."""

import copy
import logging
import sys
from pathlib import Path

LOGGERS = ("queryseg", "detectron2", "fvcore")
FILE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


SAYS_THE_SAME_AGAIN = (
    "queryseg.data.coco_json",
    "queryseg.data.video_json",
    "queryseg.data.registration",
)
"""Loggers of what is read at every evaluation."""


class Once(logging.Filter):
    """Lets every message through the first time only."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is new."""
        message = record.getMessage()
        new = message not in self._seen
        self._seen.add(message)
        return new


class ConsoleFormatter(logging.Formatter):
    """Time and message; the level only where it is more than information, and no traceback."""

    def __init__(self) -> None:
        super().__init__("[%(asctime)s] %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The line; the traceback stays in the file, and Python shows that of a bug itself."""
        plain = copy.copy(record)
        plain.exc_info = plain.exc_text = None
        return super().format(plain)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Message and level."""
        if record.levelno > logging.INFO:
            record.message = f"{record.levelname}: {record.message}"
        return super().formatMessage(record)


def set_up_logging(output_dir: Path, rank: int) -> None:
    """Send the log lines of all parts to the console and to a file, instead of where they went.

    Args:
        output_dir: gets `log.txt`, and `log.txt.rank<N>` of the other processes.
        rank: number of this process; only process 0 writes to the console.
    """
    name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
    file = logging.FileHandler(output_dir / name, encoding="utf-8")
    file.setFormatter(logging.Formatter(FILE_FORMAT))
    handlers: list[logging.Handler] = [file]
    if rank == 0:
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(ConsoleFormatter())
        console.setLevel(logging.INFO)
        handlers.append(console)
    detach_handlers()
    for logger in map(logging.getLogger, LOGGERS):
        logger.handlers = list(handlers)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    for logger in map(logging.getLogger, SAYS_THE_SAME_AGAIN):
        logger.filters = [Once()]
    # Says the same at every evaluation.
    logging.getLogger("detectron2.data.common").setLevel(logging.WARNING)


def detach_handlers() -> None:
    """Close the handlers of an earlier run in this process."""
    for logger in map(logging.getLogger, LOGGERS):
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True
    for logger in map(logging.getLogger, SAYS_THE_SAME_AGAIN):
        logger.filters = []
