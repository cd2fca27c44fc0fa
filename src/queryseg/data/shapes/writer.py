"""Writes a synthetic set to disk in COCO format."""

from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from tqdm import tqdm

from queryseg.data.shapes.folder import SPLITS, write_json, write_once
from queryseg.data.shapes.outlines import CLASS_NAMES
from queryseg.data.shapes.png import encode_png
from queryseg.data.shapes.scene import Scene, render_scene
from queryseg.data.shapes.spec import ShapesSpec


def write_shapes(root: str | Path, spec: ShapesSpec) -> bool:
    """Write `root/{train,val}/*.png` and `root/annotations/{train,val}.json`.

    The same specification gives the same bytes. A folder that already holds it is left alone;
    one that holds another specification is written anew.

    Returns:
        whether anything was written.

    Raises:
        FileExistsError: `root` holds images or annotations that this generator did not write.
    """
    root = Path(root)

    def write() -> None:
        for index, split in enumerate(SPLITS):
            _write_split(root, spec, index, split)

    return write_once(root, spec, (spec.train, spec.val), write)


def _write_split(root: Path, spec: ShapesSpec, split_index: int, split: str) -> None:
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    number = spec.train if split == "train" else spec.val
    for index in tqdm(range(number), desc=f"shapes {split}", unit="img", disable=None):
        scene = render_scene(spec, split_index, index)
        name = f"{index:06d}.png"
        (folder / name).write_bytes(encode_png(scene.image))
        image = {"id": index + 1, "file_name": name, "height": spec.height, "width": spec.width}
        images.append(image)
        annotations += _annotations(scene, index + 1, len(annotations) + 1)
    content = {
        "info": {"description": f"QuerySeg synthetic shapes, {split}", **spec.as_dict()},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories(),
    }
    write_json(root, split, content)


def categories() -> list[dict[str, Any]]:
    """The list `categories` of a json: the six shapes, from id 1."""
    return [
        {"id": index + 1, "name": name, "supercategory": "shape"}
        for index, name in enumerate(CLASS_NAMES)
    ]


def _annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    records = []
    for offset, (mask, label) in enumerate(zip(scene.masks, scene.classes)):
        rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
        records.append(
            {
                "id": first_id + offset,
                "image_id": image_id,
                "category_id": int(label) + 1,
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                "area": int(mask.sum()),
                "bbox": [int(v) for v in mask_util.toBbox(rle)],
                "iscrowd": 0,
            }
        )
    return records
