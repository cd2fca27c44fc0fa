"""What is painted where, in which colour."""

import itertools

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from queryseg.visualization import DrawnObjects, PaintStyle, paint
from queryseg.visualization.painter import label_text
from queryseg.visualization.palette import class_colour, text_colour

NO_ENLARGING = PaintStyle(min_long_side=0)


def disc(size: int, radius: float, hole: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    distance = np.hypot(x, y)
    return (distance < radius) & (distance >= hole)


def objects_of(*masks: np.ndarray, scores=None) -> DrawnObjects:
    return DrawnObjects(np.array(masks), np.arange(len(masks)), scores)


def test_a_mask_is_tinted_and_the_rest_of_the_image_is_not():
    image = np.full((200, 200, 3), 100, np.uint8)
    picture = paint(image, objects_of(disc(200, 50)), ["disc"], NO_ENLARGING)
    assert picture.shape == image.shape
    expected = 100 + NO_ENLARGING.opacity * (np.array(class_colour(0)) - 100)
    assert np.abs(picture[100, 100] - expected).max() <= 1
    assert (picture[:, :30] == 100).all()
    assert (picture[170:] == 100).all()


def test_the_hole_of_a_ring_stays_open():
    image = np.full((200, 200, 3), 100, np.uint8)
    picture = paint(image, objects_of(disc(200, 80, hole=50)), None, NO_ENLARGING)
    assert (picture[disc(200, 40)] == 100).all()
    assert (picture[100, 35] != 100).any()


def test_the_given_image_is_not_changed():
    image = np.full((50, 60, 3), 100, np.uint8)
    paint(image, objects_of(disc(60, 20)[5:55]), None, NO_ENLARGING)
    assert (image == 100).all()


@pytest.mark.parametrize("side", [640, 333])
def test_on_an_enlarged_image_the_mask_stays_in_place(side: int):
    image = np.full((64, 48, 3), 100, np.uint8)
    mask = np.zeros((64, 48), bool)
    mask[16:40, 0:20] = True  # touches the border
    style = PaintStyle(min_long_side=side, opacity=1.0, font_share=0.0, min_font_px=6)
    picture = paint(image, objects_of(mask), None, style)
    assert picture.shape == (side, round(side * 48 / 64), 3)
    scale, line = side / 64, 4  # pixels that the outline takes on either side of the edge
    top, bottom, right = round(16 * scale), round(40 * scale), round(20 * scale)
    # Enlarging rounds corners off: look along the middle of the object, both ways.
    along, down = picture[(top + bottom) // 2], picture[:, right // 2]
    assert (along[line : right - line] == class_colour(0)).all()
    assert (along[right + line :] == 100).all()
    assert (down[top + line : bottom - line] == class_colour(0)).all()
    assert (down[bottom + line :] == 100).all()


def test_small_objects_are_painted_over_large_ones():
    image = np.full((200, 200, 3), 100, np.uint8)
    small_first = DrawnObjects(np.array([disc(200, 20), disc(200, 90)]), np.array([3, 4]))
    picture = paint(image, small_first, None, PaintStyle(min_long_side=0, opacity=1.0))
    assert tuple(picture[100, 100]) == class_colour(3)
    assert tuple(picture[150, 100]) == class_colour(4)


@pytest.mark.parametrize("masks", [np.zeros((0, 20, 30), bool), np.zeros((2, 20, 30), bool)])
def test_nothing_is_painted_for_no_objects_and_for_empty_masks(masks: np.ndarray):
    image = np.random.RandomState(0).randint(0, 255, (20, 30, 3), dtype=np.uint8)
    objects = DrawnObjects(masks, np.zeros(len(masks), int), np.ones(len(masks)))
    assert np.array_equal(paint(image, objects, ["a"], NO_ENLARGING), image)


@pytest.mark.parametrize("corner", list(itertools.product([0, 90], [0, 90])))
def test_a_label_stays_inside_the_image(corner: tuple[int, int]):
    image = np.full((100, 100, 3), 100, np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = True
    picture = paint(image, objects_of(mask), ["long name"], NO_ENLARGING)
    chip = (picture == class_colour(0)).all(axis=2)
    assert chip.sum() > 500, "the whole chip is visible"


def test_the_label_stands_at_the_largest_part_of_a_mask():
    image = np.full((200, 200, 3), 100, np.uint8)
    mask = np.zeros((200, 200), bool)
    mask[100:105, 5:10] = True
    mask[120:180, 120:180] = True
    picture = paint(image, objects_of(mask), ["x"], NO_ENLARGING)
    chip = (picture == class_colour(0)).all(axis=2)
    assert chip[100:118, 110:180].sum() > 100
    assert chip[:90].sum() == 0


def test_labels_name_class_and_score():
    objects = DrawnObjects(np.zeros((2, 4, 4), bool), np.array([1, 5]), np.array([0.983, 0.5]))
    assert label_text(objects, 0, ["disc", "gear"]) == "gear 98 %"
    assert label_text(objects, 1, ["disc", "gear"]) == "class 5 50 %"
    truth = DrawnObjects(objects.masks, objects.classes)
    assert label_text(truth, 0, ["disc", "gear"]) == "gear"


def test_neighbouring_classes_have_clearly_different_colours():
    colours = [np.array(class_colour(k), float) for k in range(20)]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(colours[:8], 2)]
    assert min(distances) > 60
    assert len({tuple(c) for c in colours}) == 20


def test_text_has_a_contrast_of_at_least_four_to_one():
    def luminance(colour) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for k in range(80):
        background = class_colour(k)
        low, high = sorted(
            luminance([c / 255 for c in colour]) for colour in (background, text_colour(background))
        )
        assert (high + 0.05) / (low + 0.05) > 4.0


def test_predictions_without_masks_are_drawn_as_boxes():
    instances = Instances((20, 30))
    instances.pred_boxes = Boxes(torch.tensor([[2.0, 3.0, 12.4, 9.6], [-4.0, -4.0, 2.0, 2.0]]))
    instances.scores = torch.tensor([0.9, 0.8])
    instances.pred_classes = torch.tensor([1, 0])
    objects = DrawnObjects.from_predictions(instances)
    assert objects.masks[0].sum() == 10 * 7
    assert objects.masks[0][3:10, 2:12].all()
    assert objects.masks[1].sum() == 4


def test_annotations_of_all_notations_are_drawn_and_crowds_are_not():
    square = [[2.0, 2.0, 8.0, 2.0, 8.0, 6.0, 2.0, 6.0]]
    rle = {"size": [10, 12], "counts": [0, 10, 110]}
    record = {
        "annotations": [
            {"segmentation": square, "category_id": 4},
            {"segmentation": rle, "category_id": 2},
            {"segmentation": rle, "category_id": 1, "iscrowd": 1},
        ]
    }
    objects = DrawnObjects.from_annotations(record, (10, 12))
    assert objects.classes.tolist() == [4, 2]
    assert objects.masks[0][2:6, 2:8].all()
    assert objects.masks[0].sum() == 24
    assert objects.masks[1][:, 0].all()
    assert objects.masks[1].sum() == 10
    assert len(DrawnObjects.from_annotations({}, (10, 12))) == 0
