"""Masks as bitmaps and polygons, and the training targets cut from them."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, PolygonMasks, ROIMasks, polygons_to_bitmask
from shapely.geometry import Polygon

TRIANGLE = np.array([2.0, 1.0, 18.0, 3.0, 9.0, 14.0])
SQUARE = np.array([4.0, 4.0, 12.0, 4.0, 12.0, 12.0, 4.0, 12.0])
FAR_SQUARE = SQUARE + 6


def some_polygons() -> PolygonMasks:
    return PolygonMasks([[TRIANGLE], [SQUARE, FAR_SQUARE], [TRIANGLE + 1.3]])


def some_rois() -> torch.Tensor:
    rois = [[1.2, 0.4, 17.1, 15.9], [3.7, 5.1, 16.2, 16.6], [-2.0, 6.5, 9.9, 30.0]]
    return torch.tensor(rois)


def test_squares_are_filled_pixel_by_pixel() -> None:
    expected = np.zeros((20, 24), dtype=bool)
    expected[4:12, 4:12] = True
    expected[10:18, 10:18] = True
    bitmap = polygons_to_bitmask([SQUARE, FAR_SQUARE], 20, 24)
    assert bitmap.dtype == bool
    np.testing.assert_array_equal(bitmap, expected)
    assert not polygons_to_bitmask([], 5, 6).any()


def test_bitmaps_of_polygons_and_of_no_objects() -> None:
    masks = BitMasks.from_polygon_masks(some_polygons(), 20, 24)
    assert masks.tensor.shape == (3, 20, 24) and masks.image_size == (20, 24)
    assert masks.tensor[1].sum() == 64 + 64 - 4
    assert BitMasks.from_polygon_masks([], 20, 24).tensor.shape == (0, 20, 24)
    assert not BitMasks.from_polygon_masks([[]], 20, 24).nonempty().any()


def test_boxes_around_bitmaps_end_after_the_last_pixel() -> None:
    masks = torch.zeros(3, 8, 9, dtype=torch.bool)
    masks[0, 2, 3] = True
    masks[1, 1:5, 0] = True
    masks[1, 4, 7] = True
    boxes = BitMasks(masks).get_bounding_boxes()
    assert boxes.tensor.tolist() == [[3, 2, 4, 3], [0, 1, 8, 5], [0, 0, 0, 0]]
    assert BitMasks(masks).nonempty().tolist() == [True, True, False]
    assert len(BitMasks(masks[:0]).get_bounding_boxes()) == 0


def test_boxes_around_polygons_hold_all_parts() -> None:
    boxes = some_polygons().get_bounding_boxes().tensor
    np.testing.assert_allclose(boxes[:2], [[2, 1, 18, 14], [4, 4, 18, 18]])
    outside = PolygonMasks([[np.array([-5.0, -6.0, -1.0, -6.0, -1.0, -2.0])]])
    assert outside.get_bounding_boxes().tensor.tolist() == [[-5, -6, 0, 0]]


def test_areas_of_polygons_add_up_over_the_parts() -> None:
    shapes = [[TRIANGLE], [SQUARE, FAR_SQUARE]]
    expected = [sum(Polygon(p.reshape(-1, 2)).area for p in parts) for parts in shapes]
    np.testing.assert_allclose(PolygonMasks(shapes).area(), expected)


def test_selecting_objects() -> None:
    polygons = some_polygons()
    masks = BitMasks.from_polygon_masks(polygons, 20, 24)
    which = {
        "one": 1,
        "slice": slice(1, None),
        "bools": torch.tensor([True, False, True]),
        "indices": torch.tensor([2, 0]),
    }
    for name, item in which.items():
        expected = torch.arange(3)[item].reshape(-1).tolist()
        assert len(polygons[item]) == len(masks[item]) == len(expected), name
        for position, index in enumerate(expected):
            np.testing.assert_array_equal(
                polygons[item].polygons[position][0], polygons.polygons[index][0]
            )
            assert torch.equal(masks[item].tensor[position], masks.tensor[index])
    assert len(polygons[[0, 2]]) == 2
    assert len(PolygonMasks.cat([polygons, polygons[0]])) == 4
    assert BitMasks.cat([masks, masks[0]]).tensor.shape == (4, 20, 24)
    with pytest.raises(ValueError):
        polygons[torch.tensor([0.5])]


def test_polygons_are_copied_as_float64_and_stay_on_the_cpu() -> None:
    source = SQUARE.astype(np.float32)
    polygons = PolygonMasks([[source, torch.from_numpy(source)]])
    source += 100
    assert all(part.dtype == np.float64 for part in polygons.polygons[0])
    assert polygons.polygons[0][0].tolist() == SQUARE.tolist()
    assert polygons.to("meta").device.type == "cpu"
    assert PolygonMasks([[SQUARE], []]).nonempty().tolist() == [True, False]


@pytest.mark.parametrize("wrong", [np.zeros((1, 6)), [SQUARE], [[SQUARE[:4]]], [[SQUARE[:7]]]])
def test_what_is_no_list_of_lists_of_polygons_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError):
        PolygonMasks(wrong)


def test_a_mask_cropped_to_its_own_box_fills_the_target() -> None:
    masks = torch.zeros(1, 30, 30)
    masks[0, 6:20, 3:21] = 1
    box = torch.tensor([[3.0, 6.0, 21.0, 20.0]])
    assert BitMasks(masks).crop_and_resize(box, 7).all()
    doubled = torch.tensor([[3.0, 6.0, 39.0, 34.0]])
    target = BitMasks(masks).crop_and_resize(doubled, 8)[0]
    assert target[:4, :4].all() and target.sum() == 16
    polygon = PolygonMasks([[np.array([3.0, 6, 21, 6, 21, 20, 3, 20])]])
    assert polygon.crop_and_resize(box, 7).all()
    assert polygon.crop_and_resize(doubled, 8)[0].sum() == 16


def test_targets_equal_those_of_the_real_detectron2(stored) -> None:
    polygons, rois = some_polygons(), some_rois()
    bitmaps = BitMasks.from_polygon_masks(polygons, 20, 24)
    thin = torch.tensor([[5.0, 5.0, 5.02, 9.0]]).expand(3, 4)
    ours = {
        "bitmaps": bitmaps.tensor.numpy(),
        "from_bitmaps": bitmaps.crop_and_resize(rois, 14).numpy(),
        "from_polygons": polygons.crop_and_resize(rois, 14).numpy(),
        "in_thin_boxes": polygons.crop_and_resize(thin, 14).numpy(),
    }
    assert ours["from_polygons"].dtype == ours["from_bitmaps"].dtype == bool
    for name, answer in stored("masks", ours).items():
        np.testing.assert_array_equal(ours[name], answer, err_msg=name)


def test_targets_of_no_objects_are_empty() -> None:
    nothing = torch.zeros(0, 4)
    assert PolygonMasks([]).crop_and_resize(nothing, 5).shape == (0, 5, 5)
    assert BitMasks(torch.zeros(0, 9, 9)).crop_and_resize(nothing, 5).shape == (0, 5, 5)
    with pytest.raises(AssertionError):
        some_polygons().crop_and_resize(nothing, 5)


def test_small_masks_are_pasted_into_their_boxes() -> None:
    small = torch.zeros(2, 4, 4)
    small[0] = 1
    small[1, :, :2] = 1
    boxes = Boxes([[2.0, 3.0, 6.0, 7.0], [0.0, 0.0, 8.0, 8.0]])
    pasted = ROIMasks(small).to_bitmasks(boxes, 10, 12)
    expected = torch.zeros(2, 10, 12, dtype=torch.bool)
    expected[0, 3:7, 2:6] = True
    expected[1, :8, :4] = True
    assert torch.equal(pasted.tensor, expected)
    assert len(ROIMasks(small)[torch.tensor([False, True])]) == 1
    with pytest.raises(ValueError):
        ROIMasks(small[0])
