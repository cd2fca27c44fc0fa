"""Writing files so that an interruption leaves the old file or the new one, never half of one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

UNFINISHED_SUFFIX = ".unfinished"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under a provisional name in the same folder, then rename it.

    Args:
        path: where the file shall be.
        write: gets a binary stream to write to.
    """
    provisional = path.with_name(path.name + UNFINISHED_SUFFIX)
    try:
        with provisional.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(provisional, path)
    finally:
        provisional.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process left behind in a folder that only one process writes to."""
    for leftover in folder.glob("*" + UNFINISHED_SUFFIX):
        leftover.unlink(missing_ok=True)
