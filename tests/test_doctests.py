"""Runs the examples in the docstrings of the whole package."""

import doctest
import importlib
import pkgutil

import pytest

import queryseg
import queryseg.projects


def _modules() -> list[str]:
    names = []
    for package in (queryseg, queryseg.projects):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if "_compat" not in module.name and not module.name.endswith(("__main__", "._C")):
                names.append(module.name)
    return sorted(set(names))


@pytest.mark.parametrize("name", _modules())
def test_examples_in_docstrings_print_what_they_show(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), verbose=False)
    assert results.failed == 0
