"""The layouts that the projects declare, found without naming a project."""

from collections.abc import Iterable
from functools import cache

from queryseg.checkpoint.layout import Layout
from queryseg.project_modules import project_modules


@cache
def known_layouts() -> tuple[Layout, ...]:
    """`LAYOUTS` of every `queryseg.projects.<method>.convert`, in the order of the folders."""
    return tuple(layout for module in project_modules("convert") for layout in module.LAYOUTS)


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
