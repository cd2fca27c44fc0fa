"""Data sets of the tests, and the writer of a set like Cityscapes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from known_sets import datasets_in

sys.path.insert(0, str(Path(__file__).parents[2] / "evaluation"))


@pytest.fixture
def datasets(tmp_path: Path) -> Iterator[Path]:
    """The folder of the known data sets."""
    with datasets_in(tmp_path / "datasets") as root:
        yield root
