"""What a checkpoint file holds, once its many wrappings are taken off."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from queryseg.checkpoint.errors import CheckpointError
from queryseg.checkpoint.safe_reading import read_checkpoint_file
from queryseg.checkpoint.stamp import STAMP_KEY

# Under which keys releases keep their state dict, in order of trust.
STATE_DICT_KEYS = ("model", "state_dict", "model_state", "blobs")


@dataclass
class CheckpointContents:
    """The parameters of one file and what the file says about itself.

    Attributes:
        path: where it was read from, for messages.
        weights: name -> CPU tensor, under the names of the file.
        extras: everything else in the file (optimizer, iteration, ...).
        author: `__author__` of a model-zoo file.
        wants_matching: the file asks for names to be matched by their endings.
        stamp: `{"version", "model", "class_names"}` of a file that QuerySeg wrote.
    """

    path: str
    weights: dict[str, Tensor]
    extras: dict[str, Any] = field(default_factory=dict)
    author: str | None = None
    wants_matching: bool = False
    stamp: dict[str, Any] | None = None

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes it was trained on, where the file says so."""
        return self.stamp.get("class_names") if self.stamp else None

    @property
    def is_caffe2(self) -> bool:
        """Whether the names are Caffe2 blobs: `res2_0_branch2a_w`, never a dot."""
        names = list(self.weights)
        return not any("." in n for n in names) and any(n.endswith(("_w", "_b")) for n in names)


def read_contents(path: str) -> CheckpointContents:
    """Read a checkpoint file safely and find the parameters in it.

    Args:
        path: a local file.

    Raises:
        UnsafeCheckpointError: the file would run code.
        CheckpointError: the file is damaged or holds no parameters.
    """
    stored = read_checkpoint_file(path)
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"{path} holds a {type(stored).__name__}, not a checkpoint's dict.")
    extras = dict(stored)
    contents = CheckpointContents(
        path,
        weights={},
        author=extras.pop("__author__", None),
        wants_matching=bool(extras.pop("matching_heuristics", False)),
        stamp=extras.pop(STAMP_KEY, None),
    )
    weights = _find_state_dict(extras)
    if not weights:
        raise CheckpointError(
            f"{path} holds no parameters (its entries: {', '.join(map(str, stored)) or 'none'}). "
            "It is not a checkpoint of a model."
        )
    contents.weights = _clean(weights, path)
    contents.extras = extras
    return contents


def _find_state_dict(extras: dict[str, Any]) -> Mapping[str, Any]:
    """Take the state dict out of `extras`: from under a known key, or the entries themselves."""
    for key in STATE_DICT_KEYS:
        if isinstance(extras.get(key), Mapping) and any(map(_is_array, extras[key].values())):
            return extras.pop(key)
    return {name: extras.pop(name) for name in list(extras) if _is_array(extras[name])}


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, np.ndarray | np.generic) and value.dtype != object
    )


def _clean(weights: Mapping[str, Any], path: str) -> dict[str, Tensor]:
    """Tensors only, without momentum blobs and without the prefix of a parallel wrapper."""
    odd = [name for name, value in weights.items() if not _is_array(value)]
    if odd:
        raise CheckpointError(f"{path}: entry {odd[0]!r} of its state dict is not an array.")
    names = [name for name in weights if not name.endswith("_momentum")]
    prefix = "module." if all(name.startswith("module.") for name in names) else ""
    cleaned = OrderedDict((name[len(prefix) :], _as_tensor(weights[name])) for name in names)
    if not prefix and hasattr(weights, "_metadata"):
        # Module versions, which modules read to understand older files.
        cleaned._metadata = weights._metadata  # type: ignore[attr-defined]
    return cleaned


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    return torch.from_numpy(np.array(value).astype(value.dtype.newbyteorder("="), copy=False))
