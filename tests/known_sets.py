"""The names of known data sets, for tests that write such sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from detectron2.data import DatasetCatalog, MetadataCatalog

from queryseg.data.known_datasets import DATASETS_ROOT_VARIABLE, KNOWN_DATASETS


@contextmanager
def datasets_in(root: Path) -> Iterator[Path]:
    """Inside, the known names mean the sets in `root`.

    Names are registered once per process, with the folder of that moment: what they meant before
    is forgotten inside and comes back after.
    """
    before = [(catalog, _taken_out(catalog)) for catalog in (DatasetCatalog, MetadataCatalog)]
    try:
        with mock.patch.dict("os.environ", {DATASETS_ROOT_VARIABLE: str(root)}):
            yield root
    finally:
        for catalog, entries in before:
            _taken_out(catalog)
            catalog.update(entries)


def _taken_out(catalog: Any) -> dict[str, Any]:
    return {name: catalog.pop(name) for name in KNOWN_DATASETS if name in catalog}
