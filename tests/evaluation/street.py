"""A small synthetic set in the layout of Cityscapes."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from queryseg.data.cityscapes import LABELS
from queryseg.data.shapes import ShapesSpec, render_scene

NAMES = list(LABELS)
ROAD = 7
SPEC = ShapesSpec(height=96, width=128, min_objects=3, max_objects=4)


class Street:
    """Shapes as road users: class k of the shapes is class k of Cityscapes.

    Args:
        root: folder that holds `gtFine` and `leftImg8bit`.
        split: which of Cityscapes' splits the three images are.
    """

    def __init__(self, root: Path, split: str = "val") -> None:
        self.truth, self.images = root / "gtFine" / split, root / "leftImg8bit" / split
        self.scenes: dict[str, Any] = {}
        for index, city in enumerate(["aachen", "bonn", "bonn"]):
            scene, image_id = render_scene(SPEC, 1, index), f"{city}_000000_{index:06d}"
            ids = np.full((SPEC.height, SPEC.width), ROAD, np.int32)
            for number, (mask, label) in enumerate(zip(scene.masks, scene.classes)):
                ids[mask] = 1000 * LABELS[NAMES[label]] + number
            self.scenes[image_id] = scene
            for folder in (self.truth / city, self.images / city):
                folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene.image).save(self.images / city / f"{image_id}_leftImg8bit.png")
            self.write_ids(image_id, ids)

    def file_of(self, image_id: str) -> Path:
        return self.truth / image_id.split("_")[0] / f"{image_id}_gtFine_instanceIds.png"

    def write_ids(self, image_id: str, ids: np.ndarray) -> None:
        Image.fromarray(ids.astype(np.uint16)).save(self.file_of(image_id))

    def ids(self, image_id: str) -> np.ndarray:
        return np.asarray(Image.open(self.file_of(image_id))).astype(np.int32)
