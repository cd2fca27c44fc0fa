"""Names for objects: registries, and dotted paths that configs store."""

import functools
import importlib
from typing import Any

from fvcore.common.registry import Registry

__all__ = ["Registry", "locate"]


def locate(name: str) -> Any:
    """Return the object with the dotted path `name`, such as "torch.optim.SGD".

    Raises:
        ImportError: there is no such object.
    """
    parts = name.split(".")
    reasons: list[str] = []
    for depth in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:depth]))
            return functools.reduce(getattr, parts[depth:], module)
        except (ImportError, AttributeError) as error:
            reasons.append(str(error))
    raise ImportError(f"Cannot locate {name!r}: {'; '.join(reasons)}")


def _convert_target_to_string(target: Any) -> str:
    """Return the shortest dotted path below the object's module that leads to it."""
    *packages, last = target.__module__.split(".")
    for depth in range(1, len(packages) + 1):
        candidate = ".".join([*packages[:depth], target.__qualname__])
        try:
            if locate(candidate) is target:
                return candidate
        except ImportError:
            continue
    return ".".join([*packages, last, target.__qualname__])
