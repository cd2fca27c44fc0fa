"""The layouts that the projects declare, found without naming a project."""

from collections.abc import Iterable
from functools import cache

from queryseg.checkpoint.layout import Layout
from queryseg.project_modules import project_modules


@cache
def known_layouts() -> tuple[Layout, ...]:
    """`LAYOUTS` of every `queryseg.projects.<method>.convert`, in the order of the folders."""
    return tuple(layout for module in project_modules("convert") for layout in module.LAYOUTS)


def fitting_layouts(names: Iterable[str]) -> list[Layout]:
    """The layouts whose signature an official state dict carries, best explanation first.

    A detector's files fit it and the methods that build on it alike.

    Args:
        names: the parameter names of the state dict.
    """
    names = list(names)

    def explained(layout: Layout) -> int:
        return sum(layout.is_ignored(n) or layout.to_ours(n) is not None for n in names)

    return sorted((x for x in known_layouts() if x.recognises(names)), key=explained, reverse=True)


def find_layout(names: Iterable[str]) -> Layout | None:
    """The layout that explains most names of an official state dict; None if none does."""
    return next(iter(fitting_layouts(names)), None)
