"""Single annotations: what of them is usable, and what is said of the rest."""

import logging
from typing import Any

import numpy as np
import pytest
from read_sets import SQUARE, SQUARE_RUNS, kinds, loaded_images, mapped

from queryseg.data.mapper import InstanceMapper
from queryseg.data.problems import Effect

# Cases 3 to 8 of the twelve kinds of bad data; the others are in test_coco_json.py.


@pytest.mark.parametrize(
    ("flag", "iscrowd"),
    [("0", 0), ("false", 0), (" No ", 0), (None, 0), (0.0, 0), ("1", 1), ("True", 1), (True, 1)],
)
def test_a_crowd_flag_written_as_a_word_means_what_it_says(
    small_set: Any, flag: Any, iscrowd: int
) -> None:
    small_set.add_image(1)
    small_set.add_object(1, iscrowd=flag)
    (image,) = loaded_images(small_set)
    assert image["annotations"][0]["iscrowd"] == iscrowd
    assert len(mapped(image)) == 1 - iscrowd
    assert kinds(small_set) == set()


@pytest.mark.parametrize("flag", ["maybe", [1], {}])
def test_a_crowd_flag_that_cannot_be_read_is_reported_and_costs_no_object(
    small_set: Any, flag: Any
) -> None:
    small_set.add_image(1)
    small_set.add_object(1, iscrowd=flag)
    assert len(mapped(loaded_images(small_set)[0])) == 1
    assert kinds(small_set) == {("flag-values", Effect.HANDLED)}


@pytest.mark.parametrize("area", [10**400, float("nan"), 0, -3, "80", None])
def test_an_area_that_is_no_positive_number_is_not_taken_over(small_set: Any, area: Any) -> None:
    small_set.add_image(1)
    small_set.add_object(1, area=area)
    (image,) = loaded_images(small_set)
    assert "area" not in image["annotations"][0]
    assert len(mapped(image)) == 1


@pytest.mark.parametrize(
    ("polygons", "kind"),
    [
        ([[1, 1, 5, 5]], "polygon-points"),
        ([[1, 1, 5, 5, 9]], "polygon-odd"),
        ([[1, 1, 5, 5, 9, float("nan")]], "polygon-values"),
        ([[1, 1, 5, 5, 9, "x"]], "polygon-values"),
        ([[1, 1, 5, None, 9, 1]], "polygon-values"),
        (["1,1,5,5,9,1"], "polygon-values"),
        ([[3, 1, 3, 5, 3, 9]], "polygon-flat"),
        ([[3, 1, 3, 1e9, 9, 9]], "polygon-far"),
        ([[3, 1, 3, 1e308, 9, 1e308, 1e308, 1]], "polygon-values"),
        ([[3, 1, 3, 10**400, 9, 9]], "polygon-values"),
        ([[[4, 6], [14, 6], [14, 14], [4, 14]]], "polygon-values"),
        ([[4, 6], [14, 6], [14, 14]], "polygon-points"),
        ([[40, 1, 60, 1, 60, 20]], "outside-image"),
        ([[3, -30, 20, -30, 20, -2]], "outside-image"),
        ([], "no-segmentation"),
        (None, "no-segmentation"),
        (True, "segmentation-type"),
        ("0001.png", "segmentation-type"),
    ],
)
def test_case_3_an_unusable_polygon_is_left_out_and_named(
    small_set: Any, caplog: pytest.LogCaptureFixture, polygons: Any, kind: str
) -> None:
    small_set.add_image(1)
    small_set.add_object(1)
    small_set.add_object(1, id=77, segmentation=polygons)
    with caplog.at_level(logging.WARNING):
        (image,) = loaded_images(small_set)
    assert [annotation["id"] for annotation in image["annotations"]] == [1]
    assert f"1 of 2 annotations cannot be used and are left out: 1 x {kind}" in caplog.text
    assert "annotation 77" in caplog.text
    assert "annotations.json" in caplog.text


def test_a_bad_polygon_beside_a_good_one_costs_only_itself(small_set: Any) -> None:
    small_set.add_image(1)
    small_set.add_object(1, segmentation=[[1, 1, 2, 2], SQUARE, [1, 2, 3]])
    (image,) = loaded_images(small_set)
    assert image["annotations"][0]["segmentation"] == [SQUARE]
    assert kinds(small_set) == {("polygon-points", Effect.HANDLED)}


def test_a_polygon_without_its_outer_list_is_taken(small_set: Any) -> None:
    small_set.add_image(1)
    small_set.add_object(1, segmentation=SQUARE)
    assert mapped(loaded_images(small_set)[0]).gt_masks.tensor.sum() == 80
    assert kinds(small_set) == {("flat-polygon", Effect.HANDLED)}


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([4, 6, 0, 8], "box-area"),  # case 4
        ([4, 6, 10, -8], "box-area"),
        ([100, 6, 10, 8], "box-outside"),  # case 5
        ([-50, 6, 10, 8], "box-outside"),
        ([4, 6, 10], "box-values"),
        ([4, 6, 10, float("inf")], "box-values"),
        (["4", 6, 10, 8], "box-values"),
        ([10**400, 6, 10, 8], "box-values"),
        ([], "box-missing"),
        (None, "box-missing"),
        (..., "box-missing"),
    ],
)
@pytest.mark.parametrize("notation", ["polygon", "rle"])
def test_cases_4_and_5_an_unusable_box_is_taken_from_the_mask(
    small_set: Any, box: Any, kind: str, notation: str
) -> None:
    rle = {"size": [24, 32], "counts": SQUARE_RUNS}
    small_set.add_image(1)
    small_set.add_object(1, bbox=box, segmentation=[SQUARE] if notation == "polygon" else rle)
    (image,) = loaded_images(small_set)
    assert image["annotations"][0]["bbox"] == [4, 6, 10, 8]
    assert kinds(small_set) == {(kind, Effect.HANDLED)}


def test_a_box_partly_outside_is_reported_and_clipped_when_mapped(small_set: Any) -> None:
    small_set.add_image(1)
    small_set.add_object(1, bbox=[-5, 6, 60, 8])
    small_set.add_object(1, bbox=[-1, 6, 32, 8])  # rounding, not worth a word
    (image,) = loaded_images(small_set)
    mapper = InstanceMapper(is_train=True, augmentations=[], recompute_boxes=False)
    boxes = mapper(image)["instances"].gt_boxes.tensor.tolist()
    assert boxes == [[0, 6, 32, 14], [0, 6, 31, 14]]
    assert kinds(small_set) == {("box-beyond", Effect.HANDLED)}


def test_cases_6_7_8_all_notations_may_be_mixed_in_one_file(small_set: Any) -> None:
    small_set.add_image(1)
    mask = np.zeros((24, 32), dtype=np.uint8)
    mask[6:14, 4:14] = 1
    small_set.add_object(1)
    small_set.add_object(1, segmentation={"size": [24, 32], "counts": SQUARE_RUNS})
    (image,) = loaded_images(small_set)
    text = image["annotations"][1]["segmentation"]["counts"]
    assert isinstance(text, str)
    small_set.add_object(1, segmentation={"size": [24, 32], "counts": text})
    (image,) = loaded_images(small_set)
    for found in mapped(image).gt_masks.tensor.numpy():
        np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize(
    ("rle", "kind"),
    [
        ({"size": [32, 24], "counts": SQUARE_RUNS}, "rle-size"),
        ({"size": [24, 32], "counts": [5, 5]}, "rle-counts"),
        ({"size": [24, 32], "counts": [2**62, 2**62, 2**62, 2**62 + 24 * 32]}, "rle-counts"),
        ({"size": [24, 32], "counts": [2**70, 1]}, "rle-counts"),
        ({"size": [24, 32], "counts": "%%%"}, "rle-counts"),
        ({"size": [24, 32]}, "rle-counts"),
        ({"counts": SQUARE_RUNS}, "rle-size"),
        ({"size": [24, 32], "counts": [24 * 32]}, "empty-mask"),
    ],
)
def test_an_unusable_rle_is_left_out(small_set: Any, rle: Any, kind: str) -> None:
    small_set.add_image(1)
    small_set.add_object(1, segmentation=rle)
    (image,) = loaded_images(small_set)
    assert image["annotations"] == []
    assert kinds(small_set) == {(kind, Effect.DROPPED)}
