"""Boxes and their overlaps, against hand-made numbers and a plain loop."""

import json
import math

import numpy as np
import pytest
import torch
from detectron2.structures import (
    Boxes,
    BoxMode,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from detectron2.structures.boxes import matched_pairwise_iou, pairwise_intersection

XYXY, XYWH, XYWHA = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS


def some_boxes(count: int, seed: int) -> np.ndarray:
    generator = np.random.RandomState(seed)
    corners = generator.uniform(0, 40, size=(count, 2))
    return np.concatenate([corners, corners + generator.uniform(0, 30, size=(count, 2))], axis=1)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def area(a: np.ndarray) -> float:
    return (a[2] - a[0]) * (a[3] - a[1])


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_boxes_come_back_in_the_type_they_came_in(kind: type) -> None:
    single = kind is list or kind is tuple
    box = kind([1.0, 2.0, 4.0, 8.0] if single else [[1.0, 2.0, 4.0, 8.0]])
    there = BoxMode.convert(box, XYXY, XYWH)
    back = BoxMode.convert(there, XYWH, XYXY)
    assert type(there) is type(box) is type(back)
    assert np.ravel(np.asarray(there)).tolist() == [1, 2, 3, 6]
    assert np.ravel(np.asarray(back)).tolist() == [1, 2, 4, 8]


def test_conversion_leaves_the_input_as_it_is_and_keeps_integers() -> None:
    boxes = np.array([[5, 5, 10, 12]])
    converted = BoxMode.convert(boxes, XYWH, XYXY)
    assert boxes.tolist() == [[5, 5, 10, 12]]
    assert converted.tolist() == [[5, 5, 15, 17]] and converted.dtype == boxes.dtype
    assert BoxMode.convert([1, 2, 3, 4], 0, 1) == [1, 2, 2, 2]
    assert BoxMode.convert(boxes, XYXY, XYXY) is boxes


def test_a_list_passes_through_float32() -> None:
    converted = BoxMode.convert([0.1, 0.2, 0.7, 0.9], XYWH, XYXY)
    expected = np.float32([0.1, 0.2]) + np.float32([0.7, 0.9])
    assert converted[2:] == [float(number) for number in expected]


@pytest.mark.parametrize("degrees", [0, 30, 90, 200, -45])
def test_upright_box_around_a_rotated_one_holds_its_corners_tightly(degrees: float) -> None:
    x, y, w, h = 50.0, 40.0, 30.0, 20.0
    turn = math.radians(degrees)
    corners = np.array([(dx * w / 2, dy * h / 2) for dx in (-1, 1) for dy in (-1, 1)])
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    turned = corners @ rotation.T + [x, y]
    upright = BoxMode.convert(np.array([[x, y, w, h, degrees]]), XYWHA, XYXY)[0]
    np.testing.assert_allclose(upright[:2], turned.min(axis=0), atol=1e-9)
    np.testing.assert_allclose(upright[2:], turned.max(axis=0), atol=1e-9)


def test_a_box_without_rotation_has_angle_zero() -> None:
    assert BoxMode.convert([50, 50, 30, 20], XYWH, XYWHA) == [65, 60, 30, 20, 0]


def test_conversions_that_do_not_exist_are_refused() -> None:
    with pytest.raises(NotImplementedError):
        BoxMode.convert([1.0, 2.0, 3.0, 4.0], XYXY, XYWHA)
    with pytest.raises(AssertionError):
        BoxMode.convert([0.1, 0.2, 0.3, 0.4], BoxMode.XYXY_REL, XYXY)
    with pytest.raises(AssertionError):
        BoxMode.convert([1.0, 2.0, 3.0], XYXY, XYWH)


def test_box_mode_survives_json() -> None:
    assert json.loads(json.dumps({"mode": XYWH})) == {"mode": 1}


def test_boxes_are_float32_and_empty_boxes_keep_four_columns() -> None:
    assert Boxes(np.array([[0, 0, 1, 1]])).tensor.dtype == torch.float32
    assert Boxes(torch.zeros(1, 4, dtype=torch.float64)).tensor.dtype == torch.float32
    for nothing in (torch.empty(0), [], np.zeros((0, 4))):
        assert Boxes(nothing).tensor.shape == (0, 4)
    assert Boxes.cat([]).tensor.shape == (0, 4)
    with pytest.raises(AssertionError):
        Boxes(torch.zeros(2, 5))


def test_selecting_boxes() -> None:
    boxes = Boxes(torch.arange(12.0).reshape(3, 4))
    assert len(boxes) == 3
    assert boxes[1].tensor.tolist() == [[4, 5, 6, 7]]
    assert boxes[-2:].tensor.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert boxes[torch.tensor([True, False, True])].tensor[:, 0].tolist() == [0, 8]
    assert boxes[torch.tensor([2, 0])].tensor[:, 0].tolist() == [8, 0]
    assert [box.tolist() for box in boxes][2] == [8, 9, 10, 11]
    assert Boxes.cat([boxes, boxes[0]]).tensor[3].tolist() == [0, 1, 2, 3]


def test_clipping_replaces_the_tensor_and_scaling_writes_into_it() -> None:
    tensor = torch.tensor([[-3.0, 5.0, 30.0, 50.0]])
    boxes = Boxes(tensor)
    boxes.clip((40, 20))
    assert boxes.tensor.tolist() == [[0, 5, 20, 40]] and tensor[0, 0] == -3
    clipped = boxes.tensor
    boxes.scale(2.0, 0.5)
    assert clipped.tolist() == [[0, 2.5, 40, 20]]
    with pytest.raises(AssertionError):
        Boxes(torch.tensor([[0.0, 0.0, math.inf, 1.0]])).clip((4, 4))


def test_measures_of_single_boxes() -> None:
    boxes = Boxes(torch.tensor([[0.0, 0.0, 3.0, 4.0], [2.0, 2.0, 2.0, 9.0], [1.0, 1.0, 1.5, 9.0]]))
    assert boxes.area().tolist() == [12, 0, 4]
    assert boxes.nonempty().tolist() == [True, False, True]
    assert boxes.nonempty(threshold=0.5).tolist() == [True, False, False]
    assert boxes.get_centers().tolist() == [[1.5, 2], [2, 5.5], [1.25, 5]]
    assert boxes.inside_box((9, 5)).tolist() == [True, False, False]
    assert boxes.inside_box((9, 5), boundary_threshold=1).tolist() == [True, True, True]


def test_pairwise_measures_agree_with_a_plain_loop(stored) -> None:
    first, second = some_boxes(23, seed=1), some_boxes(17, seed=2)
    second[3] = first[3]
    second[4] = [5, 5, 5, 9]
    boxes1, boxes2 = Boxes(first), Boxes(second)
    inter = np.array([[overlap(a, b) for b in second] for a in first])
    union = np.array([[area(a) + area(b) for b in second] for a in first]) - inter
    areas = np.array([area(b) for b in second])
    ioa = np.divide(inter, areas, out=np.zeros_like(inter), where=inter > 0)
    # float32 against float64: three roundings of numbers below 1e3
    np.testing.assert_allclose(pairwise_intersection(boxes1, boxes2), inter, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(pairwise_iou(boxes1, boxes2), inter / union, atol=2e-6)
    np.testing.assert_allclose(pairwise_ioa(boxes1, boxes2), ioa, atol=2e-5)
    diagonal = matched_pairwise_iou(boxes1[:17], boxes2)
    np.testing.assert_allclose(diagonal, np.diagonal(inter / union), atol=2e-6)

    ours = {
        "iou": pairwise_iou(boxes1, boxes2).numpy(),
        "ioa": pairwise_ioa(boxes1, boxes2).numpy(),
        "matched": diagonal.numpy(),
    }
    for name, answer in stored("boxes", ours).items():
        np.testing.assert_allclose(ours[name], answer, rtol=1e-6, atol=0, err_msg=name)


def test_boxes_without_overlap_or_area_have_zero_iou_and_no_nan() -> None:
    boxes = Boxes(torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]]))
    assert pairwise_iou(boxes, boxes).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert pairwise_iou(boxes, Boxes([])).shape == (3, 0)


def test_distances_from_a_point_to_the_sides_of_a_box() -> None:
    points = torch.tensor([[2.0, 3.0], [-1.0, 0.0]])
    distances = pairwise_point_box_distance(points, Boxes([[0.0, 1.0, 10.0, 20.0]]))
    assert distances.shape == (2, 1, 4)
    assert distances[:, 0].tolist() == [[2, 2, 8, 17], [-1, -1, 11, 20]]
