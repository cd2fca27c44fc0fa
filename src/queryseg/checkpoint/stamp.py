"""What a checkpoint that QuerySeg writes says about itself."""

from collections.abc import Sequence
from typing import Any

from torch import nn

import queryseg

STAMP_KEY = "queryseg"


def make_stamp(model: nn.Module, class_names: Sequence[str] | None) -> dict[str, Any]:
    """Who wrote it, for which model and which classes; stored under `STAMP_KEY`."""
    kind = type(model)
    return {
        "version": queryseg.__version__,
        "model": f"{kind.__module__}.{kind.__qualname__}",
        "class_names": None if class_names is None else list(class_names),
    }
