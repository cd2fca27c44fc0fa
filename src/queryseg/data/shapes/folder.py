"""A folder that a generator writes once, and again when it is asked for something else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from queryseg.data.shapes.spec import ShapesSpec

SPLITS = ("train", "val")
ANNOTATIONS = "annotations"
SPEC_FILE = "shapes.json"


def write_once(
    root: Path, spec: ShapesSpec, images_per_split: tuple[int, int], write: Callable[[], None]
) -> bool:
    """Write a synthetic set unless the folder holds it already.

    Args:
        root: its folder: images below `train/` and `val/`, jsons in `annotations/`.
        spec: what decides every byte; kept beside the images.
        images_per_split: files that belong below `train/` and `val/`.
        write: writes images and jsons.

    Returns:
        Whether anything was written.

    Raises:
        FileExistsError: `root` holds files that no generator wrote.
    """
    if _holds(root, spec, images_per_split):
        return False
    _clear(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / SPEC_FILE).write_text(json.dumps({"complete": False}), encoding="utf-8")
    write()
    text = json.dumps(_completed(spec), indent=1) + "\n"
    (root / SPEC_FILE).write_text(text, encoding="utf-8")
    return True


def write_json(root: Path, split: str, content: dict[str, Any]) -> None:
    """Write `annotations/<split>.json`."""
    (root / ANNOTATIONS).mkdir(exist_ok=True)
    file = root / ANNOTATIONS / f"{split}.json"
    file.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _holds(root: Path, spec: ShapesSpec, images_per_split: tuple[int, int]) -> bool:
    try:
        found = json.loads((root / SPEC_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    counts = tuple(len(list((root / split).rglob("*.png"))) for split in SPLITS)
    jsons = all((root / ANNOTATIONS / f"{split}.json").is_file() for split in SPLITS)
    return jsons and counts == images_per_split and found == _completed(spec)


def _completed(spec: ShapesSpec) -> dict[str, Any]:
    return {"complete": True, **spec.as_dict()}


def _clear(root: Path) -> None:
    folders = (*SPLITS, ANNOTATIONS)
    old = sorted(f for folder in folders for f in (root / folder).rglob("*") if f.is_file())
    if old and not (root / SPEC_FILE).is_file():
        raise FileExistsError(
            f"{old[0]} was not written by this generator: choose another --output folder"
        )
    for file in old:
        if file.suffix in (".png", ".json"):
            file.unlink()
