"""From what a user writes for a checkpoint to a file on this machine."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs

from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from queryseg.checkpoint.contents import CheckpointContents, read_contents
from queryseg.checkpoint.errors import CheckpointError
from queryseg.checkpoint.zoo import resolve_zoo_name

OPTIONS = ("matching_heuristics", "allow_partial")
CHECKPOINT_SUFFIXES = (".pth", ".pkl", ".pt", ".bin")


def open_checkpoint(path: str | os.PathLike[str]) -> CheckpointContents:
    """Find, fetch and read a checkpoint.

    Args:
        path: a local file, a web address, `detectron2://...` or `zoo://<name>`, with or without
            `?matching_heuristics=True`.

    Raises:
        FileNotFoundError: there is no such file; the message lists what lies beside it.
        CheckpointError: it cannot be fetched, is unsafe, damaged or no checkpoint.
    """
    file, options = split_options(os.fspath(path))
    contents = read_contents(locate(file))
    contents.wants_matching |= options.get("matching_heuristics", False)
    return contents


def split_options(path: str) -> tuple[str, Mapping[str, bool]]:
    """Separate `?option=True` from a path.

    >>> split_options("model.pth?allow_partial=True")
    ('model.pth', {'allow_partial': True})

    Raises:
        CheckpointError: an option that does not exist.
    """
    file, mark, query = path.rpartition("?")
    if not mark or os.path.isfile(path):
        return path, {}
    options = {key: values[-1] == "True" for key, values in parse_qs(query).items()}
    if not options or not set(options) <= set(OPTIONS):
        known = " and ".join(f"?{name}=True" for name in OPTIONS)
        raise CheckpointError(f"'?{query}' behind {file} is not understood; known are {known}.")
    return file, options


def locate(path: str) -> str:
    """The local path of a checkpoint, fetched and cached where it lies elsewhere.

    With several processes, only the main one has to see the file.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it cannot be fetched, or the zoo has no such name.
    """
    address = resolve_zoo_name(path)
    if "://" in address:
        return _download(address)
    if not os.path.isfile(address) and comm.is_main_process():
        raise FileNotFoundError(
            f"Checkpoint {address} does not exist. {list_checkpoints(Path(address).parent)} "
            "Check the path, or name a published file: zoo://<name>."
        )
    return address


def list_checkpoints(folder: Path) -> str:
    """One sentence about the checkpoints in a folder."""
    if not folder.is_dir():
        return f"There is no folder {folder}."
    names = sorted(f.name for f in folder.iterdir() if f.suffix in CHECKPOINT_SUFFIXES)
    found = ", ".join(names) or "no checkpoints"
    return f"The folder {folder} has {found}."


def _download(address: str) -> str:
    try:
        return PathManager.get_local_path(address)
    except Exception as error:
        raise CheckpointError(
            f"{address} could not be fetched ({error}). Without network, download it elsewhere "
            "and give the path of the file."
        ) from error
