"""What the tests of reading look at: images, targets and problems of a small set."""

from typing import Any

from queryseg.data.coco_json import load_coco_json, read_coco_json
from queryseg.data.mapper import InstanceMapper
from queryseg.data.problems import Effect

SQUARE = [4, 6, 14, 6, 14, 14, 4, 14]  # on a 24 x 32 image: 80 pixels
SQUARE_RUNS = [4 * 24 + 6, 8, *([16, 8] * 9), 18 * 24 + 10]


def loaded_images(small_set: Any) -> list[dict[str, Any]]:
    return load_coco_json(*small_set.write()).images


def mapped(image: dict[str, Any]) -> Any:
    return InstanceMapper(is_train=True, augmentations=[])(image)["instances"]


def kinds(small_set: Any) -> set[tuple[str, Effect]]:
    return {(p.kind, p.effect) for p in read_coco_json(*small_set.write()).problems}
