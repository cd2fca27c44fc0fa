"""Boundary IoU against its definition, pixel by pixel, and boundary AP against faster-coco-eval."""

import contextlib
import io

import numpy as np
import pycocotools.mask as mask_util
import pytest

from queryseg.evaluation.boundary_iou import inner_border
from queryseg.evaluation.coco_metrics import count_matches


def _by_distance(mask: np.ndarray, width: int) -> np.ndarray:
    """Mask pixels within `width` king's moves of a pixel that is no mask, or lies outside."""
    height, columns = mask.shape
    border = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask)):
        rows = range(y - width, y + width + 1)
        for v in rows:
            for u in range(x - width, x + width + 1):
                outside = not (0 <= v < height and 0 <= u < columns)
                border[y, x] |= outside or not mask[v, u]
    return border


def _blob(rng: np.random.RandomState, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    for _ in range(3):
        y, x = rng.randint(0, size[0] - 8), rng.randint(0, size[1] - 8)
        mask[y : y + rng.randint(6, 24), x : x + rng.randint(6, 24)] = True
    return mask


@pytest.mark.parametrize(
    ("size", "width"), [((30, 40), 1), ((48, 64), 2), ((61, 83), 2), ((20, 20), 1)]
)
def test_inner_border_equals_the_definition(size: tuple[int, int], width: int) -> None:
    rng = np.random.RandomState(size[0])
    for _ in range(3):
        mask = _blob(rng, size)
        np.testing.assert_array_equal(inner_border(mask), _by_distance(mask, width))
    assert not inner_border(np.zeros(size, dtype=bool)).any()


def _set(seed: int) -> tuple[list, list, list]:
    """Ground truth with crowds, and detections that are shifted or ragged copies of it."""
    rng = np.random.RandomState(seed)
    sizes, truth, found = [], [], []
    for image in range(6):
        size = (60 + 7 * image, 90)
        sizes.append(size)
        for number in range(4):
            mask = _blob(rng, size)
            entry = {"image_id": image, "category_id": int(rng.randint(2))}
            crowd = int(number == 3)
            truth.append({**entry, **_annotation(mask), "iscrowd": crowd})
            moved = np.roll(mask, rng.randint(-2, 3, 2), (0, 1)) ^ (rng.rand(*size) < 0.003)
            found.append({**entry, **_annotation(moved), "score": float(rng.rand())})
    return sizes, truth, found


def _annotation(mask: np.ndarray) -> dict:
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    box = mask_util.toBbox(rle).tolist()
    return {"segmentation": rle, "bbox": box, "area": float(mask.sum())}


@pytest.mark.parametrize("seed", range(3))
def test_boundary_ap_equals_faster_coco_eval(seed: int) -> None:
    package = pytest.importorskip("faster_coco_eval")
    sizes, truth, found = _set(seed)
    ours = count_matches(sizes, truth, found, num_classes=2, task="boundary")
    sets = []
    for entries in (truth, found):
        coco = package.COCO()
        coco.dataset = {
            "images": [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes)],
            "categories": [{"id": k, "name": str(k)} for k in range(2)],
            "annotations": [
                {"iscrowd": 0, **entry, "id": i} for i, entry in enumerate(entries, start=1)
            ],
        }
        coco.createIndex()
        sets.append(coco)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = package.COCOeval_faster(*sets, "boundary")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"]).reshape(ours.precision.shape)
    np.testing.assert_allclose(ours.precision, precision, atol=1e-12)
    masks = count_matches(sizes, truth, found, num_classes=2, task="segm").summary()
    assert 0 < ours.summary()["AP"] < masks["AP"]


def test_ground_truth_as_predictions_has_boundary_ap_100() -> None:
    sizes, truth, _ = _set(7)
    found = [{**entry, "score": 1.0} for entry in truth if not entry["iscrowd"]]
    assert count_matches(sizes, truth, found, 2, "boundary").summary()["AP"] == 100
