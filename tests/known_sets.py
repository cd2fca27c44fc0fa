"""The names of known data sets, for tests that write such sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from detectron2.data import DatasetCatalog, MetadataCatalog

from queryseg.data.known_datasets import DATASETS_ROOT_VARIABLE, KNOWN_DATASETS


@contextmanager
def datasets_in(root: Path) -> Iterator[Path]:
    """Inside, the known names mean the sets in `root`.

    Names are registered once per process, with the folder of that moment: they are forgotten
    before and after.
    """
    _forget_known_sets()
    with mock.patch.dict("os.environ", {DATASETS_ROOT_VARIABLE: str(root)}):
        yield root
    _forget_known_sets()


def _forget_known_sets() -> None:
    for name in KNOWN_DATASETS:
        for catalog in (DatasetCatalog, MetadataCatalog):
            if name in catalog:
                catalog.pop(name)
