"""A small COCO-format set written by hand, and catalogs that forget what a test registers."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image


class SmallSet:
    """Builds images and annotations; `write` puts them on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.image_folder = root / "images"
        self.image_folder.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 1, "name": "apple"}, {"id": 2, "name": "pear"}],
        }

    def add_image(self, image_id: Any, height: int = 24, width: int = 32, **changes: Any) -> str:
        name = f"{image_id}.png"
        pixels = np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.image_folder / name)
        entry = {"id": image_id, "file_name": name, "height": height, "width": width}
        self.content["images"].append({**entry, **changes})
        return str(self.image_folder / name)

    def add_object(self, image_id: Any, **changes: Any) -> None:
        entry = {
            "id": len(self.content["annotations"]) + 1,
            "image_id": image_id,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [4, 6, 10, 8],
            "area": 80,
            "segmentation": [[4, 6, 14, 6, 14, 14, 4, 14]],
        }
        entry.update(changes)
        self.content["annotations"].append({k: v for k, v in entry.items() if v is not ...})

    def write(self) -> tuple[Path, Path]:
        json_file = self.root / "annotations.json"
        json_file.write_text(json.dumps(self.content))
        return json_file, self.image_folder


@pytest.fixture
def small_set(tmp_path: Path) -> SmallSet:
    return SmallSet(tmp_path / "small")


@pytest.fixture
def make_small_set(tmp_path: Path) -> Callable[[str], SmallSet]:
    return lambda name: SmallSet(tmp_path / name)


@pytest.fixture
def clean_catalogs() -> Iterator[None]:
    catalogs = (DatasetCatalog, MetadataCatalog)
    before = [dict(catalog.data) for catalog in catalogs]
    yield
    for catalog, data in zip(catalogs, before):
        catalog.data.clear()
        catalog.data.update(data)
