"""Data sets of the tests, and the writer of a set like Cityscapes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

sys.path.insert(0, str(Path(__file__).parents[2] / "evaluation"))


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the known data sets; names that a test registers are forgotten after it.

    Names are registered once per process, with the folder of that moment.
    """
    known = set(DatasetCatalog)
    for name in [one for one in known if one.startswith(("shapes_", "cityscapes_", "bdd100k_"))]:
        _forget(name)
    known = set(DatasetCatalog)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    yield tmp_path / "datasets"
    for name in set(DatasetCatalog) - known:
        _forget(name)


def _forget(name: str) -> None:
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog:
            catalog.pop(name)
