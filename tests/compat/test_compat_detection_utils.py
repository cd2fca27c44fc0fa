"""Reading images and transforming annotations, step by step."""

import copy
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.data import MetadataCatalog, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from PIL import Image

POLYGON = [2.0, 3.0, 12.0, 3.0, 12.0, 9.0]


def corner_image() -> np.ndarray:
    """Distinct colours in the four quarters of a (8, 12) image."""
    image = np.zeros((8, 12, 3), dtype=np.uint8)
    image[:4, :6], image[:4, 6:], image[4:, :6] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    return image


@pytest.mark.parametrize(
    ("orientation", "stored_as"),
    [
        (1, lambda upright: upright),
        (2, lambda upright: upright[:, ::-1]),
        (3, lambda upright: upright[::-1, ::-1]),
        (4, lambda upright: upright[::-1]),
        (5, lambda upright: upright.swapaxes(0, 1)),
        (6, lambda upright: np.rot90(upright, 1)),
        (7, lambda upright: np.rot90(upright, 2).swapaxes(0, 1)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, stored_as) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(stored_as(corner_image()))).save(path, exif=exif)
    np.testing.assert_array_equal(detection_utils.read_image(str(path), "RGB"), corner_image())


def test_formats_of_images(tmp_path: Path) -> None:
    path = str(tmp_path / "image.png")
    Image.fromarray(corner_image()).save(path)
    bgr = detection_utils.read_image(path, "BGR")
    np.testing.assert_array_equal(bgr, corner_image()[:, :, ::-1])
    grey = detection_utils.read_image(path, "L")
    assert grey.shape == (8, 12, 1)
    np.testing.assert_array_equal(grey[..., 0], Image.fromarray(corner_image()).convert("L"))
    np.testing.assert_array_equal(detection_utils.read_image(path), corner_image())
    for image, name in ((bgr, "BGR"), (corner_image(), "RGB"), (torch.tensor(bgr.copy()), "BGR")):
        rgb = detection_utils.convert_image_to_rgb(image, name)
        np.testing.assert_array_equal(rgb, corner_image())
    assert detection_utils.convert_image_to_rgb(grey, "L").shape == (8, 12, 3)


def test_an_image_of_another_size_than_annotated_is_refused() -> None:
    sample = {"file_name": "wrong.png", "width": 12, "height": 9}
    with pytest.raises(detection_utils.SizeMismatchError, match=r"wrong\.png"):
        detection_utils.check_image_size(sample, corner_image())
    sample = {}
    detection_utils.check_image_size(sample, corner_image())
    assert sample == {"width": 12, "height": 8}


def test_boxes_are_transformed_and_clipped() -> None:
    annotation = {"bbox": [-4.0, 10.0, 30.0, 25.0], "bbox_mode": BoxMode.XYWH_ABS}
    flipped = T.TransformList([T.HFlipTransform(20), T.ResizeTransform(30, 20, 60, 20)])
    result = detection_utils.transform_instance_annotations(annotation, flipped, (60, 20))
    assert result is annotation and result["bbox_mode"] == BoxMode.XYXY_ABS
    np.testing.assert_allclose(result["bbox"], [0, 20, 20, 60])


def test_polygons_come_back_flat_and_run_lengths_as_bitmaps() -> None:
    box = {"bbox": [2, 3, 12, 9], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1}
    flip = [T.HFlipTransform(20)]
    polygon = detection_utils.transform_instance_annotations(
        box | {"segmentation": [POLYGON]}, flip, (10, 20)
    )
    np.testing.assert_allclose(polygon["segmentation"][0], [18, 3, 8, 3, 8, 9])
    mask = np.zeros((10, 20), dtype=np.uint8, order="F")
    mask[2:5, 1:9] = 1
    runs = detection_utils.transform_instance_annotations(
        box | {"segmentation": coco_mask.encode(mask)}, flip, (10, 20)
    )
    np.testing.assert_array_equal(runs["segmentation"], mask[:, ::-1])
    with pytest.raises(ValueError):
        detection_utils.transform_instance_annotations(
            box | {"segmentation": "10101"}, flip, (10, 20)
        )


def test_cropped_polygons_are_cut_at_the_window() -> None:
    window = [T.CropTransform(5, 0, 10, 10)]
    annotation = {"bbox": [2, 3, 12, 9], "bbox_mode": BoxMode.XYXY_ABS, "segmentation": [POLYGON]}
    cut = detection_utils.transform_instance_annotations(annotation, window, (10, 10))
    area = PolygonMasks([cut["segmentation"]]).area().item()
    # the triangle below the diagonal from (2, 3) to (12, 9), from x = 5 on
    assert area == pytest.approx(0.5 * 10 * 6 - 0.5 * 3 * 1.8)
    np.testing.assert_allclose(cut["bbox"], [0, 3, 7, 9])


def test_keypoints_outside_are_unlabelled_and_mirrored_ones_swapped() -> None:
    annotation = {
        "bbox": [2, 3, 12, 9],
        "bbox_mode": BoxMode.XYXY_ABS,
        "keypoints": [4.0, 5.0, 2, 19.0, 5.0, 1, 3.0, 9.0, 0],
    }
    window = [T.CropTransform(0, 0, 10, 8)]
    cropped = detection_utils.transform_instance_annotations(
        copy.deepcopy(annotation), window, (8, 10)
    )
    assert cropped["keypoints"].tolist() == [[4, 5, 2], [0, 0, 0], [0, 0, 0]]
    mirrored = detection_utils.transform_instance_annotations(
        copy.deepcopy(annotation),
        [T.HFlipTransform(20)],
        (10, 20),
        keypoint_hflip_indices=[1, 0, 2],
    )
    assert mirrored["keypoints"].tolist() == [[1, 5, 1], [16, 5, 2], [0, 0, 0]]
    with pytest.raises(ValueError):
        detection_utils.transform_instance_annotations(annotation, [T.HFlipTransform(20)], (10, 20))


def test_annotations_become_instances_in_both_mask_formats() -> None:
    bitmap = np.zeros((10, 20), dtype=np.uint8, order="F")
    bitmap[3:9, 2:8] = 1
    box = {"bbox": [2.0, 3.0, 6.0, 6.0], "bbox_mode": BoxMode.XYWH_ABS}
    shapes = [[POLYGON], coco_mask.encode(bitmap), bitmap[:, ::-1]]
    annotations = [
        box | {"category_id": index, "segmentation": shape} for index, shape in enumerate(shapes)
    ]
    instances = detection_utils.annotations_to_instances(annotations, (10, 20), "bitmask")
    assert instances.gt_boxes.tensor.tolist() == [[2, 3, 8, 9]] * 3
    assert instances.gt_classes.tolist() == [0, 1, 2]
    assert instances.gt_classes.dtype == torch.int64
    assert instances.gt_masks.tensor[1:].tolist() == [bitmap.tolist(), bitmap[:, ::-1].tolist()]
    polygons = detection_utils.annotations_to_instances(annotations[:1], (10, 20))
    np.testing.assert_allclose(polygons.gt_masks.polygons[0][0], POLYGON)
    with pytest.raises(ValueError):
        detection_utils.annotations_to_instances(annotations, (10, 20))
    with pytest.raises(ValueError):
        wrong = [box | {"category_id": 0, "segmentation": "101"}]
        detection_utils.annotations_to_instances(wrong, (10, 20), "bitmask")


def test_images_without_objects_have_boxes_and_classes_of_length_zero() -> None:
    instances = detection_utils.annotations_to_instances([], (10, 20))
    assert instances.gt_boxes.tensor.shape == (0, 4) and len(instances.gt_classes) == 0
    assert not instances.has("gt_masks")


def test_objects_without_extent_are_left_out() -> None:
    masks = torch.zeros(4, 5, 5, dtype=torch.bool)
    masks[:3, 2, 2] = True
    boxes = Boxes([[0, 0, 2, 2], [1, 1, 1, 3], [0, 0, 1e-6, 2], [0, 0, 3, 3.0]])
    instances = Instances((5, 5), gt_boxes=boxes, gt_masks=BitMasks(masks))
    instances.index = torch.arange(4)
    choose = detection_utils.filter_empty_instances
    assert choose(instances).index.tolist() == [0]
    assert choose(instances, by_mask=False).index.tolist() == [0, 3]
    assert choose(instances, by_box=False).index.tolist() == [0, 1, 2]
    assert choose(instances, box_threshold=2.5, by_mask=False).index.tolist() == [3]
    kept, mask = choose(instances, return_mask=True)
    assert kept.index.tolist() == [0] and mask.tolist() == [True, False, False, False]


def test_a_window_around_an_object_holds_its_centre() -> None:
    instance = {"bbox": [30, 10, 20, 16], "bbox_mode": BoxMode.XYWH_ABS}
    choose = detection_utils.gen_crop_transform_with_instance
    corners = set()
    for _ in range(200):
        crop = choose((12, 9), (40, 60), instance)
        assert (crop.h, crop.w) == (12, 9)
        assert 0 <= crop.y0 <= 18 <= crop.y0 + 12 <= 40
        assert 0 <= crop.x0 <= 40 <= crop.x0 + 9 <= 60
        corners.add((crop.y0, crop.x0))
    assert len(corners) > 60
    with pytest.raises(AssertionError):
        choose((12, 9), (40, 39), instance)
    with pytest.raises(AssertionError):
        choose((41, 9), (40, 60), instance)


def test_data_sets_used_together_have_to_agree() -> None:
    names = ["compat_first", "compat_second"]
    try:
        for name in names:
            MetadataCatalog.get(name).thing_classes = ["a"]
        detection_utils.check_metadata_consistency("thing_classes", names)
        MetadataCatalog.get(names[0]).ignore_label = 0
        with pytest.raises(AttributeError):
            detection_utils.check_metadata_consistency("ignore_label", names)
        MetadataCatalog.get(names[1]).ignore_label = 255
        with pytest.raises(ValueError, match="ignore_label"):
            detection_utils.check_metadata_consistency("ignore_label", names)
    finally:
        for name in names:
            MetadataCatalog.remove(name)
