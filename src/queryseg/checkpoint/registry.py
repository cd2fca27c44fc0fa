"""The layouts that the projects declare, found without naming a project."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from functools import cache

from queryseg.checkpoint.layout import Layout


@cache
def known_layouts() -> tuple[Layout, ...]:
    """`LAYOUTS` of every `queryseg.projects.<method>.convert`, in the order of the folders."""
    projects = importlib.import_module("queryseg.projects")
    layouts: list[Layout] = []
    for project in pkgutil.iter_modules(projects.__path__, "queryseg.projects."):
        if project.ispkg and importlib.util.find_spec(f"{project.name}.convert") is not None:
            layouts.extend(importlib.import_module(f"{project.name}.convert").LAYOUTS)
    return tuple(layouts)


def find_layout(names: Iterable[str]) -> Layout | None:
    """The layout of an official state dict.

    Args:
        names: the parameter names of the state dict.

    Returns:
        Among the layouts whose signature is present, the one that explains most names; None when
        no signature is.
    """
    names = list(names)

    def explained(layout: Layout) -> int:
        return sum(layout.is_ignored(n) or layout.to_ours(n) is not None for n in names)

    return max(
        (layout for layout in known_layouts() if layout.recognises(names)),
        key=explained,
        default=None,
    )
