"""Drawing: where colour lands, which colour, which labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from detectron2.utils.colormap import colormap, random_color, random_colors
from detectron2.utils.visualizer import ColorMode, GenericMask, Visualizer, _create_text_labels

cv2 = pytest.importorskip("cv2")
BLUE = (0.0, 0.0, 1.0)


def gray_image(height: int = 60, width: int = 80, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def square_mask(shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[10:30, 20:50] = True
    return mask


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.5])
def test_the_picture_has_the_size_of_the_scaled_image(scale: float) -> None:
    picture = Visualizer(gray_image(61, 83), scale=scale).output.get_image()
    assert picture.shape == (int(61 * scale), int(83 * scale), 3)
    assert picture.dtype == np.uint8 and (picture == 100).all()


def test_a_mask_is_blended_with_its_opacity_inside_and_nothing_outside() -> None:
    mask = square_mask()
    picture = Visualizer(gray_image()).draw_binary_mask(mask, color=BLUE, alpha=0.3).get_image()
    inside = cv2.erode(mask.astype(np.uint8), np.ones((9, 9))).astype(bool)  # not the edge
    outside = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))) == 0
    blended = [0.7 * 100, 0.7 * 100, 0.7 * 100 + 0.3 * 255]
    assert np.allclose(picture[inside], blended, atol=1.01)  # 8 bits
    assert (picture[outside] == 100).all()


def test_a_mask_with_a_hole_leaves_the_hole_free() -> None:
    mask = square_mask()
    mask[18:22, 30:40] = False
    picture = Visualizer(gray_image()).draw_binary_mask(mask, color="red", alpha=0.5).get_image()
    assert (picture[20, 32:38] == 100).all()
    assert (picture[14, 25:45, 0] > 150).all()


def test_small_parts_are_left_out() -> None:
    mask = square_mask()
    mask[50:52, 70:72] = True
    picture = Visualizer(gray_image()).draw_binary_mask(mask, color=BLUE, area_threshold=10)
    assert (picture.get_image()[45:55, 65:75] == 100).all()


def test_a_soft_mask_blends_pixel_by_pixel() -> None:
    opacity = np.linspace(0, 1, 80, dtype=np.float32)[None].repeat(60, axis=0)
    picture = Visualizer(gray_image(value=0)).draw_soft_mask(opacity, color="white", alpha=0.5)
    error = np.abs(picture.get_image()[:, :, 0] - 0.5 * 255 * opacity)
    assert error.max() <= 2.01  # opacity and colour are cut to 8 bits


def test_all_ways_to_give_a_mask_mean_the_same() -> None:
    mask = square_mask()
    polygon = np.array([20, 10, 50, 10, 50, 30, 20, 30], dtype=np.float64)
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    columns = np.flatnonzero(np.diff(np.r_[0, mask.T.ravel(), 0]))
    counts = np.diff(np.r_[0, columns, mask.size])
    uncompressed = {"size": [60, 80], "counts": counts.tolist()}
    for given in (mask, [polygon], rle, uncompressed):
        one = GenericMask(given, 60, 80)
        assert np.array_equal(one.mask, mask) and one.area() == 600
        assert not one.has_holes and len(one.polygons) == 1
        assert np.allclose(one.bbox(), [20, 10, 50, 30], atol=1)
    pixels = GenericMask(mask, 60, 80).polygons[0].reshape(-1, 2)
    assert pixels.min(axis=0).tolist() == [20.5, 10.5]  # pixel centres
    assert pixels.max(axis=0).tolist() == [49.5, 29.5]


def test_an_odd_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="str"):
        GenericMask("mask", 60, 80)
    with pytest.raises(AssertionError):
        GenericMask(square_mask(), 50, 80)


def test_labels_hold_names_scores_and_crowds() -> None:
    assert _create_text_labels([1, 0], [0.987, 0.5], ["cat", "dog"]) == ["dog 99%", "cat 50%"]
    assert _create_text_labels([1, 0], None, None, [1, 0]) == ["1|crowd", "0"]
    assert _create_text_labels(None, torch.tensor([0.25]), ["cat"]) == ["25%"]
    assert _create_text_labels(None, None, ["cat"]) is None


def drawn_texts(visualizer: Visualizer) -> list[str]:
    return [text.get_text() for text in visualizer.output.ax.texts]


def instances() -> Instances:
    masks = torch.zeros(2, 60, 80, dtype=torch.bool)
    masks[0, 5:15, 5:15] = True
    masks[1, 10:50, 20:70] = True
    return Instances(
        (60, 80),
        pred_boxes=Boxes(torch.tensor([[5.0, 5, 15, 15], [20, 10, 70, 50]])),
        scores=torch.tensor([0.9, 0.4]),
        pred_classes=torch.tensor([1, 0]),
        pred_masks=masks,
    )


def test_instances_are_drawn_from_the_largest_to_the_smallest() -> None:
    visualizer = Visualizer(gray_image(), Metadata(thing_classes=["cat", "dog"]))
    visualizer.draw_instance_predictions(instances())
    assert drawn_texts(visualizer) == ["cat 40%", "dog 90%"]
    assert visualizer.get_output() is visualizer.output


@pytest.mark.parametrize("fields", [("pred_masks",), ("pred_boxes",), ("pred_masks", "scores")])
def test_predictions_may_miss_fields(fields: tuple[str, ...]) -> None:
    whole, part = instances(), Instances((60, 80))
    for name in fields:
        part.set(name, whole.get(name))
    visualizer = Visualizer(gray_image())
    picture = visualizer.draw_instance_predictions(part).get_image()
    assert (picture != 100).any()
    expected = ["40%", "90%"] if "scores" in fields else []
    assert drawn_texts(visualizer) == expected


def test_no_instances_change_nothing() -> None:
    picture = Visualizer(gray_image()).draw_instance_predictions(instances()[:0]).get_image()
    assert (picture == 100).all()


def test_class_colours_are_used_in_segmentation_mode() -> None:
    metadata = Metadata(thing_colors=[[0, 0, 255], [255, 0, 0]])
    visualizer = Visualizer(gray_image(), metadata, instance_mode=ColorMode.SEGMENTATION)
    picture = visualizer.draw_instance_predictions(instances(), jittering=False).get_image()
    assert np.allclose(picture[45, 25:65], [20, 20, 0.8 * 255 + 20], atol=1.01)


def test_grey_mode_keeps_the_colour_inside_masks_only() -> None:
    image = gray_image()
    image[:] = [200, 100, 0]
    visualizer = Visualizer(image, instance_mode=ColorMode.IMAGE_BW)
    picture = visualizer.draw_instance_predictions(instances()).get_image().astype(int)
    assert (picture[58] == 100).all()  # outside: the mean
    assert picture[45, 30, 0] - picture[45, 30, 2] > 50


def test_annotations_of_a_data_set_are_drawn() -> None:
    annotations: list[dict[str, Any]] = [
        {
            "bbox": [20, 10, 30, 20],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 0,
            "segmentation": [[20, 10, 50, 10, 50, 30, 20, 30]],
        },
        {
            "bbox": [60, 35, 70, 45],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 1,
            "iscrowd": 1,
            "segmentation": mask_util.encode(np.asfortranarray(square_mask().astype(np.uint8))),
        },
    ]
    visualizer = Visualizer(gray_image(), Metadata(thing_classes=["cat", "dog"]))
    picture = visualizer.draw_dataset_dict({"annotations": annotations}).get_image()
    assert drawn_texts(visualizer) == ["cat", "dog|crowd"]
    assert (picture[15, 30] != 100).any() and (picture[:, :10] == 100).all()
    empty = Visualizer(gray_image()).draw_dataset_dict({"file_name": "x"})
    assert (empty.get_image() == 100).all()


@pytest.mark.parametrize("kind", ["polygons", "bitmasks", "tensor", "generic"])
def test_overlays_take_every_kind_of_mask(kind: str) -> None:
    mask = square_mask()
    masks: Any = {
        "polygons": PolygonMasks([[np.array([20.0, 10, 50, 10, 50, 30, 20, 30])]]),
        "bitmasks": BitMasks(torch.from_numpy(mask[None])),
        "tensor": torch.from_numpy(mask[None]),
        "generic": [GenericMask(mask, 60, 80)],
    }[kind]
    visualizer = Visualizer(gray_image())
    picture = visualizer.overlay_instances(masks=masks, labels=["a"], assigned_colors=[BLUE])
    assert picture.get_image()[28, 24, 2] > 150
    assert drawn_texts(visualizer) == ["a"]


def test_as_many_labels_as_boxes_are_needed() -> None:
    with pytest.raises(AssertionError):
        Visualizer(gray_image()).overlay_instances(boxes=np.ones((2, 4)), labels=["a"])


def test_boxes_texts_and_files(tmp_path: Path) -> None:
    visualizer = Visualizer(gray_image(value=0))
    visualizer.draw_box((5, 5, 20, 20), edge_color="white", alpha=1.0)
    visualizer.draw_text("MM", (60, 30), color="white", font_size=12)
    picture = visualizer.get_output().get_image()
    assert picture[12, 5].max() > 100 and (picture[12, 12] == 0).all()
    text = np.argwhere(picture[:, 30:].max(axis=2) > 100)
    assert text[:, 0].min() > 30 and abs(np.median(text[:, 1]) + 30 - 60) < 4  # below, centred
    visualizer.get_output().save(str(tmp_path / "picture.png"))
    saved = cv2.imread(str(tmp_path / "picture.png"))
    assert np.abs(saved[:, :, ::-1].astype(int) - picture).max() <= 1


def test_random_colours_repeat_the_real_packages_draws() -> None:
    colors = colormap(rgb=True, maximum=1)
    assert len(colors) == 74 and len(np.unique(colors, axis=0)) > 60
    np.random.seed(5)
    assert np.array_equal(
        random_color(rgb=True, maximum=1), colors[np.random.RandomState(5).randint(0, 74)]
    )
    assert np.array_equal(colormap(rgb=False), colormap(rgb=True)[:, ::-1])
    several = np.array(random_colors(30, rgb=True, maximum=255))
    assert several.shape == (30, 3) and 1 < several.max() <= 255
