"""Reading checkpoint files so that nothing in them can run.

A pickle may name any callable and have it called while it is read. Here only the constructors of
plain data (arrays, dtypes, containers, argument lists) are let through; everything else is refused
before it is looked up.
"""

import argparse
import collections
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch

from queryseg.checkpoint.errors import CheckpointError, UnsafeCheckpointError

# The first object of torch's older (not zipped) file format.
TORCH_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
ZIP_START = b"PK\x03\x04"


def read_checkpoint_file(path: str) -> Any:
    """The plain data of a checkpoint file, whatever its ending says.

    Read are torch's zipped and older formats (`weights_only`, with arrays, numpy scalars and
    `argparse.Namespace` let through) and pickles of arrays, also those that Python 2 wrote.

    Args:
        path: a local file.

    Returns:
        The stored object; tensors are on the CPU.

    Raises:
        UnsafeCheckpointError: the file names a callable that is not on the list.
        CheckpointError: the file is damaged or no checkpoint.
    """
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file) or _starts_with_legacy_magic(file):
                file.seek(0)
                return _torch_load(file)
            file.seek(0)
            if file.read(len(ZIP_START)) == ZIP_START:
                raise EOFError("a torch file without its end")
            file.seek(0)
            return NumpyUnpickler(file).load()
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(_unsafe_message(path, str(error))) from None
    except OSError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({reason}). It is cut short, or no .pth/.pkl "
            "file: fetch it again, and compare its size or checksum."
        ) from error


class NumpyUnpickler(pickle.Unpickler):
    """An unpickler that can build numbers, strings, containers and numpy arrays only.

    Raises:
        UnsafeCheckpointError: the pickle names anything else.
    """

    def __init__(self, file: BinaryIO) -> None:
        # latin1 maps every byte of a Python 2 string to one character, as its arrays need.
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """Look a global up in the list; see `pickle.Unpickler.find_class`."""
        try:
            return _NUMPY_GLOBALS[f"{module}.{name}"]
        except KeyError:
            raise UnsafeCheckpointError(f"{module}.{name}") from None


class _Sealed:
    """A function that a pickle may call and may not change.

    A pickle can also set attributes of the objects it names; the functions of other packages must
    not be open to that.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise UnsafeCheckpointError(f"a change of {self._function.__name__}")


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stand-in for `codecs.encode`, by which old pickles spell their byte strings."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafeCheckpointError(f"_codecs.encode with encoding {encoding!r}")
    return text.encode("latin1")


def _numpy_constructors() -> dict[str, Callable[..., Any]]:
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    from_buffer = np.zeros(1).__reduce_ex__(5)[0]
    constructors: dict[str, Any] = {"numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
    for core in ("numpy.core", "numpy._core"):  # numpy 1 and numpy 2
        constructors[f"{core}.multiarray._reconstruct"] = reconstruct
        constructors[f"{core}.multiarray.scalar"] = scalar
        constructors[f"{core}.numeric._frombuffer"] = from_buffer
    return constructors


def _numpy_globals() -> dict[str, Any]:
    """Everything that a pickle of arrays may name: types, and functions that it cannot change."""
    named: dict[str, Any] = {**_numpy_constructors(), "_codecs.encode": _encode_latin1}
    sealed = {k: v if isinstance(v, type) else _Sealed(v) for k, v in named.items()}
    return {**sealed, "collections.OrderedDict": collections.OrderedDict}


_NUMPY_GLOBALS = _numpy_globals()


def _torch_globals() -> list[Any]:
    """What `weights_only` lets through beyond its own list: arrays and recorded arguments."""
    numpy_globals = [(value, name) for name, value in _numpy_constructors().items()]
    dtypes = {type(np.dtype(char)) for char in np.typecodes["All"]}
    paths = [
        (pathlib.PurePosixPath, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath")
    ]
    return [*numpy_globals, *dtypes, *paths, argparse.Namespace, collections.defaultdict]


def _torch_load(file: BinaryIO) -> Any:
    try:
        with torch.serialization.safe_globals(_torch_globals()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            raise
        raise UnsafeCheckpointError(refused.group(1)) from None


def _unsafe_message(path: str, refused: str) -> str:
    return (
        f"{path} was not loaded: besides tensors it holds {refused!r}, which would run code while "
        "it is read; nothing was run. If you trust where the file comes from, open it once with "
        "its author's code and save the tensors alone: torch.save({'model': state_dict}, path)."
    )


def _starts_with_legacy_magic(file: BinaryIO) -> bool:
    """Whether the file is in torch's older format: an integer pickled before everything else."""
    magic = pickle.dumps(TORCH_LEGACY_MAGIC, protocol=2)[2:]  # without the protocol's own bytes
    file.seek(0)
    return magic in file.read(32)
