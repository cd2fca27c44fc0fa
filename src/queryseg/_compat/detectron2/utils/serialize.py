"""Pickling what pickle cannot: functions defined inside functions."""

from collections.abc import Callable
from typing import Any

import cloudpickle

__all__ = ["PicklableWrapper"]


class PicklableWrapper:
    """Acts like the wrapped object and is pickled by cloudpickle; unpickling gives the object."""

    def __init__(self, obj: Any) -> None:
        self._obj = obj._obj if isinstance(obj, PicklableWrapper) else obj

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return cloudpickle.loads, (cloudpickle.dumps(self._obj),)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._obj(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_obj":  # asked for before __init__ has run: no recursion
            raise AttributeError(name)
        return getattr(self._obj, name)
