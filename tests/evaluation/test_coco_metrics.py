"""COCO numbers against hand calculation, and the fast path against pycocotools."""

import logging
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest

from queryseg.evaluation import coco_metrics
from queryseg.evaluation.coco_metrics import Counting, count_matches

SIZE = (60, 80)


def rle(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    mask = np.zeros(SIZE, dtype=np.uint8, order="F")
    mask[max(y, 0) : y + height, max(x, 0) : x + width] = 1
    return mask_util.encode(mask)


def truth(image: int, box: tuple[int, int, int, int], category: int = 0, **more: Any) -> Any:
    return {
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "segmentation": rle(*box),
        "area": box[2] * box[3],
        "iscrowd": 0,
        **more,
    }


def guess(image: int, box: tuple[int, int, int, int], score: float, category: int = 0) -> Any:
    return {**truth(image, box, category), "score": score}


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("fast", [False, True])
def test_average_precision_equals_the_calculation_by_hand(task: str, fast: bool) -> None:
    first, second = (2, 2, 20, 20), (40, 30, 20, 10)
    found = [guess(0, first, 0.9), guess(0, (2, 40, 8, 8), 0.8), guess(0, second, 0.7)]
    counting = count_matches([SIZE], [truth(0, first), truth(0, second)], found, 1, task, fast=fast)
    # Precision is 1 at the 51 recall points up to 0.5 and 2/3 at the other 50.
    expected = 100 * (51 + 50 * 2 / 3) / 101
    summary = counting.summary()
    assert summary["AP"] == pytest.approx(expected, abs=1e-9)
    assert summary["AP50"] == pytest.approx(expected) == summary["AP75"]
    assert summary["AR@1"] == pytest.approx(50)
    assert summary["AR@10"] == summary["AR@100"] == pytest.approx(100)
    assert summary["ARs@100"] == pytest.approx(100)
    assert np.isnan(summary["APm"])
    assert np.isnan(summary["ARl@100"])


def test_a_detection_counts_at_the_thresholds_that_its_overlap_reaches() -> None:
    # 20 x 10 against 20 x 16: an overlap of 10/16 = 0.625, above 0.5, 0.55 and 0.6 of ten.
    counting = count_matches(
        [SIZE], [truth(0, (5, 5, 20, 16))], [guess(0, (5, 5, 20, 10), 0.5)], 1, "segm"
    )
    summary = counting.summary()
    assert summary["AP"] == pytest.approx(30)
    assert summary["AR@100"] == pytest.approx(30)
    assert (summary["AP50"], summary["AP75"]) == (pytest.approx(100), 0)


@pytest.mark.parametrize("fast", [False, True])
def test_recall_by_size_counts_objects_of_that_size_only(fast: bool) -> None:
    small, medium = (0, 0, 20, 20), (20, 20, 40, 30)
    counting = count_matches(
        [SIZE, SIZE],
        [truth(0, small), truth(1, small), truth(0, medium)],
        [guess(0, small, 0.9), guess(0, medium, 0.9)],
        1,
        "segm",
        fast=fast,
    )
    summary = counting.summary()
    assert summary["ARs@100"] == pytest.approx(50)
    assert summary["ARm@100"] == pytest.approx(100)
    assert summary["AR@100"] == pytest.approx(200 / 3)


def test_the_area_of_a_mask_decides_its_size_not_that_of_its_box() -> None:
    mask = np.zeros(SIZE, dtype=np.uint8, order="F")
    mask[0:50, 0:3] = mask[0:3, 0:50] = 1  # box 50 x 50: medium; mask 291 pixels: small
    entry = {**truth(0, (0, 0, 50, 50)), "segmentation": mask_util.encode(mask), "area": 291}
    counting = count_matches([SIZE], [entry], [{**entry, "score": 1.0}], 1, "segm")
    assert counting.summary()["APs"] == pytest.approx(100)
    assert np.isnan(counting.summary()["APm"])


@pytest.mark.parametrize("fast", [False, True])
def test_without_predictions_the_precision_is_zero_where_there_is_something_to_find(
    fast: bool,
) -> None:
    counting = count_matches([SIZE], [truth(0, (0, 0, 9, 9), 1)], [], 3, "segm", fast=fast)
    assert counting.summary()["AP"] == 0
    per_class = counting.per_class()
    assert per_class[1] == 0
    assert np.isnan(per_class[0])
    assert np.isnan(per_class[2])


def random_case(rng: np.random.RandomState) -> tuple[list[Any], list[Any], list[Any], int]:
    sizes = [SIZE] * int(rng.randint(1, 5))
    num_classes = int(rng.randint(1, 4))
    entries, guesses = [], []
    for image in range(len(sizes)):
        for _ in range(rng.randint(0, 6)):
            x, y, w, h = (int(v) for v in rng.randint([0, 0, 5, 5], [50, 40, 60, 50]))
            w, h = min(w, SIZE[1] - x), min(h, SIZE[0] - y)
            category = int(rng.randint(num_classes))
            crowd = int(rng.rand() < 0.15)
            entries.append(truth(image, (x, y, w, h), category, iscrowd=crowd))
            for _ in range(rng.randint(0, 4)):
                dx, dy = (int(v) for v in rng.randint(-4, 5, size=2))
                box = (max(x + dx, 0), max(y + dy, 0), w, h)
                wrong = rng.rand() < 0.1
                label = int(rng.randint(num_classes)) if wrong else category
                guesses.append(guess(image, box, round(float(rng.rand()), 1), label))
    return sizes, entries, guesses, num_classes


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_the_fast_path_equals_pycocotools(task: str) -> None:
    pytest.importorskip("faster_coco_eval", reason="the fast path is a dependency")
    rng = np.random.RandomState(0)
    for _ in range(40):  # with ties, crowds, empty images, classes without objects
        sizes, entries, guesses, num_classes = random_case(rng)
        limit = int(rng.choice([1, 3, 100]))
        fast, reference = (
            count_matches(sizes, entries, guesses, num_classes, task, limit, fast=fast)
            for fast in (True, False)
        )
        np.testing.assert_allclose(fast.precision, reference.precision, atol=1e-12)
        np.testing.assert_allclose(fast.recall, reference.recall, atol=1e-12)
        np.testing.assert_allclose(
            list(fast.summary().values()), list(reference.summary().values()), atol=1e-9
        )


def test_pycocotools_steps_in_where_the_fast_package_is_absent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(coco_metrics, "_FAST_PACKAGE", "faster_coco_eval_is_not_here")
    box = (1, 1, 9, 9)
    with caplog.at_level(logging.INFO):
        counting = count_matches([SIZE], [truth(0, box)], [guess(0, box, 1.0)], 1, "bbox")
    assert counting.summary()["AP"] == pytest.approx(100)
    assert "using pycocotools" in caplog.text


def test_nothing_is_written_to_stdout_and_the_inputs_stay_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    entries, found = [truth(0, (1, 1, 9, 9))], [guess(0, (1, 1, 9, 9), 0.5)]
    before = repr((entries, found))
    for fast in (True, False):
        assert isinstance(count_matches([SIZE], entries, found, 1, "segm", fast=fast), Counting)
    assert repr((entries, found)) == before
    assert capsys.readouterr().out == ""


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="keypoints"):
        count_matches([SIZE], [], [], 1, "keypoints")
