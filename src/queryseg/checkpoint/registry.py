"""The layouts that the projects declare, found without naming a project."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from functools import cache

from queryseg.checkpoint.layout import Layout


def project_modules(name: str) -> list[str]:
    """Full names of the modules `queryseg.projects.<method>.<name>` that exist."""
    projects = importlib.import_module("queryseg.projects")
    modules = (
        f"{project.name}.{name}"
        for project in pkgutil.iter_modules(projects.__path__, "queryseg.projects.")
        if project.ispkg
    )
    return [module for module in modules if importlib.util.find_spec(module) is not None]


@cache
def known_layouts() -> tuple[Layout, ...]:
    """`LAYOUTS` of every `queryseg.projects.<method>.convert`, in the order of the folders."""
    modules = map(importlib.import_module, project_modules("convert"))
    return tuple(layout for module in modules for layout in module.LAYOUTS)


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
