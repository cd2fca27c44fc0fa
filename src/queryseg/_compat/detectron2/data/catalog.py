"""The data sets known by name: how to read each one, and what is known about it."""

import copy
import logging
import types
from collections import UserDict
from collections.abc import Callable
from typing import Any

from detectron2.utils.logger import log_first_n

_RENAMED = {
    "class_names": "thing_classes",
    "dataset_id_to_contiguous_id": "thing_dataset_id_to_contiguous_id",
    "stuff_class_names": "stuff_classes",
}


class _DatasetCatalog(UserDict):
    """From the name of a data set to the function that reads it as a list of dicts."""

    def register(self, name: str, func: Callable[[], list[dict[str, Any]]]) -> None:
        """Make a data set known. `func` takes nothing and gives the same list at every call."""
        assert callable(func), f"data set '{name}' needs a function that reads it, not {func!r}"
        assert name not in self, f"data set '{name}' is registered already"
        self[name] = func

    def get(self, name: str) -> list[dict[str, Any]]:
        """Read a data set.

        Raises:
            KeyError: no data set of this name was registered.
        """
        if name not in self:
            raise KeyError(
                f"No data set is registered as '{name}'; these are: {', '.join(self)}. (Of the "
                "built-in ones, the subset of Detectron2 knows COCO.)"
            )
        return self[name]()

    def remove(self, name: str) -> None:
        self.pop(name)

    def __repr__(self) -> str:
        return f"DatasetCatalog(registered datasets: {', '.join(self)})"

    def list(self) -> list[str]:
        """The names of all data sets."""
        return [*self.keys()]


class Metadata(types.SimpleNamespace):
    """What is known about one data set, as attributes that can be set once.

    Setting an attribute again is fine as long as the value stays equal.
    """

    name: str = "N/A"  # a default, so that the messages below can always name it

    def __getattr__(self, key: str) -> Any:
        if key in _RENAMED:
            return getattr(self, _current_name(key))
        known = ", ".join(self.__dict__)
        raise AttributeError(f"The metadata of '{self.name}' has no '{key}', only: {known}")

    def __setattr__(self, key: str, val: Any) -> None:
        if key in _RENAMED:
            key = _current_name(key)
        if not hasattr(self, key):
            super().__setattr__(key, val)
            return
        old = getattr(self, key)
        assert old == val, (
            f"'{key}' in the metadata of '{self.name}' is {old} already and cannot become {val}"
        )

    def as_dict(self) -> dict[str, Any]:
        """All attributes in a new dict."""
        return copy.copy(self.__dict__)

    def set(self, **kwargs: Any) -> "Metadata":
        """Set several attributes and return this object."""
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute, or `default` where it was never set."""
        return getattr(self, key, default)


def _current_name(key: str) -> str:
    new = _RENAMED[key]
    log_first_n(logging.WARNING, f"'{key}' in metadata is called '{new}' now", n=10)
    return new


class _MetadataCatalog(UserDict):
    """From the name of a data set to its `Metadata`, which lives as long as the program."""

    def get(self, name: str) -> Metadata:
        """The metadata of this name; empty metadata if nobody asked for it before."""
        assert len(name), "metadata needs a name"
        if name not in self:
            self[name] = Metadata(name=name)
        return self[name]

    def remove(self, name: str) -> None:
        self.pop(name)

    def __repr__(self) -> str:
        return f"MetadataCatalog(registered metadata: {', '.join(self)})"

    def list(self) -> list[str]:
        """The names that have metadata."""
        return [*self.keys()]


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
