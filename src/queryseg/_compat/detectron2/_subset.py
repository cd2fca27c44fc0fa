"""What the subset leaves out: names that can be imported and that raise when they are used."""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from queryseg.detectron2_seam import REAL_INSTALL_HINT


class NeedsRealDetectron2(ImportError):
    """Something outside the bundled subset was used."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} needs the real Detectron2; the subset bundled with QuerySeg does not have it. "
            f"Install it with: {REAL_INSTALL_HINT}",
            name=what,
        )


class _Outside(type):
    """Metaclass of the stand-ins: calling one or reading a public attribute raises."""

    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise NeedsRealDetectron2(cls._outside_name)

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise NeedsRealDetectron2(f"{cls._outside_name}.{name}")


def needs_real(name: str) -> Any:
    """Return a stand-in for the function or class `name` ("detectron2.modeling.FCOS").

    It can be imported, subclassed and named in `isinstance` (always false); calling it or reading
    one of its public attributes raises `NeedsRealDetectron2`.
    """
    module, _, short_name = name.rpartition(".")
    return _Outside(short_name, (), {"_outside_name": name, "__module__": module})


def outside(module: str, *names: str) -> Callable[[str], Any]:
    """Return a module-level `__getattr__` that gives stand-ins for `names`.

    Usage: `__getattr__ = outside(__name__, "FCOS", "RetinaNet")`.
    """
    stand_ins = {name: needs_real(f"{module}.{name}") for name in names}

    def module_getattr(name: str) -> Any:
        if name in stand_ins:
            return stand_ins[name]
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return module_getattr


def leave_out(owner: type, names: str) -> None:
    """Give a class stand-ins for the methods in `names`, separated by spaces."""
    for name in names.split():
        setattr(owner, name, needs_real(f"{owner.__module__}.{owner.__qualname__}.{name}"))


class _OutsideFinder:
    """Asked last by `import`: names the cure for every `detectron2` module that is not here.

    `from detectron2.some_package import name` ends here too when `name` does not exist.
    """

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.startswith("detectron2."):
            raise NeedsRealDetectron2(fullname)
        return None


def name_the_cure_for_missing_modules() -> None:
    """Make the import of a Detectron2 module outside the subset raise `NeedsRealDetectron2`."""
    if _OutsideFinder not in sys.meta_path:
        sys.meta_path.append(_OutsideFinder)
