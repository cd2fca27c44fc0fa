"""Transforms of images, coordinates and masks, and the augmentations that draw them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.data import transforms as T
from PIL import Image


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.RandomState(seed).randint(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC))


IMAGE = smooth_image(30, 42)


def test_uint8_images_are_resized_by_pillow() -> None:
    transform = T.ResizeTransform(30, 42, 11, 17)
    expected = np.asarray(Image.fromarray(IMAGE).resize((17, 11), Image.BILINEAR))
    np.testing.assert_array_equal(transform.apply_image(IMAGE), expected)
    np.testing.assert_array_equal(transform.apply_image(IMAGE[:, :, :1]), expected[:, :, :1])
    np.testing.assert_array_equal(transform.apply_image(IMAGE[:, :, 1]), expected[:, :, 1])
    np.testing.assert_array_equal(transform.apply_image(IMAGE[:, :, ::-1]), expected[:, :, ::-1])
    nearest = np.asarray(Image.fromarray(IMAGE[:, :, 0]).resize((17, 11), Image.NEAREST))
    np.testing.assert_array_equal(transform.apply_segmentation(IMAGE[:, :, 0]), nearest)


@pytest.mark.parametrize("shape", [(30, 42), (30, 42, 1), (30, 42, 3)])
def test_float_images_are_resized_by_torch_without_smoothing(shape: tuple[int, ...]) -> None:
    image = np.random.RandomState(1).rand(*shape).astype(np.float32)
    planes = torch.from_numpy(image).reshape(30, 42, -1).permute(2, 0, 1)[None]
    expected = F.interpolate(planes, (11, 17), mode="bilinear", align_corners=False)
    resized = T.ResizeTransform(30, 42, 11, 17).apply_image(image)
    assert resized.shape == (11, 17, *shape[2:]) and resized.dtype == np.float32
    np.testing.assert_allclose(
        resized.reshape(11, 17, -1), expected[0].permute(1, 2, 0), rtol=0, atol=1e-6
    )
    flipped = T.ResizeTransform(30, 42, 30, 42).apply_image(image[::-1])
    np.testing.assert_array_equal(flipped, image[::-1])


def test_resizing_scales_coordinates_and_back() -> None:
    transform = T.ResizeTransform(30, 42, 15, 126)
    coords = np.array([[0.0, 0.0], [42.0, 30.0], [21.0, 10.0]])
    scaled = transform.apply_coords(coords.copy())
    np.testing.assert_allclose(scaled, [[0, 0], [126, 15], [63, 5]])
    np.testing.assert_allclose(transform.inverse().apply_coords(scaled), coords)
    with pytest.raises(AssertionError):
        transform.apply_image(IMAGE[:20])


def test_an_extent_within_the_image_is_a_crop_and_outside_is_black() -> None:
    crop = T.ExtentTransform((4, 6, 20, 16), (10, 16))
    np.testing.assert_array_equal(crop.apply_image(IMAGE), IMAGE[6:16, 4:20])
    np.testing.assert_array_equal(crop.apply_segmentation(IMAGE[:, :, 0]), IMAGE[6:16, 4:20, 0])
    np.testing.assert_allclose(crop.apply_coords(np.array([[4, 6], [20, 16]])), [[0, 0], [16, 10]])
    doubled = T.ExtentTransform((4, 6, 20, 16), (20, 32))
    np.testing.assert_allclose(doubled.apply_coords(np.array([[12.0, 7.0]])), [[16, 2]])
    outside = T.ExtentTransform((-10, 0, 10, 30), (30, 20)).apply_image(IMAGE[:, :, :1] | 1)
    assert outside.shape == (30, 20, 1)
    assert (outside[:, :9] == 0).all() and (outside[:, 11:] > 0).all()


@pytest.mark.parametrize("expand", [True, False])
@pytest.mark.parametrize("angle", [20, 90, 133.5, 360])
def test_rotation_turns_coordinates_about_the_centre(angle: float, expand: bool) -> None:
    transform = T.RotationTransform(30, 42, angle, expand=expand)
    turn = math.radians(angle)
    cos, sin = math.cos(turn), math.sin(turn)
    coords = np.array([[0.0, 0.0], [42.0, 30.0], [21.0, 15.0], [3.5, 28.0]])
    height, width = transform.apply_image(IMAGE).shape[:2]
    # y points down: counter-clockwise on the screen is (x cos + y sin, y cos - x sin)
    x, y = (coords - [21, 15]).T
    turned_x, turned_y = transform.apply_coords(coords).T
    np.testing.assert_allclose(turned_x, x * cos + y * sin + width / 2, atol=1e-9)
    np.testing.assert_allclose(turned_y, y * cos - x * sin + height / 2, atol=1e-9)
    if not expand:
        assert (height, width) == (30, 42)
    else:
        bounds = np.abs([[cos, sin], [sin, cos]]) @ [30, 42]
        assert (height, width) == tuple(np.rint(bounds))


def test_rotation_about_a_point_keeps_it_in_place() -> None:
    transform = T.RotationTransform(30, 42, 37, expand=False, center=(5, 9))
    np.testing.assert_allclose(transform.apply_coords([[5, 9]]), [[5, 9]], atol=1e-9)


def test_quarter_turns_move_pixels_exactly_and_can_be_undone() -> None:
    transform = T.RotationTransform(30, 42, 90)
    turned = transform.apply_image(IMAGE)
    np.testing.assert_array_equal(turned, np.rot90(IMAGE))
    np.testing.assert_array_equal(transform.inverse().apply_image(turned), IMAGE)
    mask = (IMAGE[:, :, 0] > 100).astype(np.uint8)
    np.testing.assert_array_equal(transform.apply_segmentation(mask), np.rot90(mask))
    with pytest.raises(NotImplementedError):
        T.RotationTransform(30, 42, 90, expand=False).inverse()


def test_colours_change_and_places_do_not() -> None:
    inverted = T.ColorTransform(np.invert)
    np.testing.assert_array_equal(inverted.apply_image(IMAGE), 255 - IMAGE)
    assert inverted.apply_segmentation(IMAGE) is IMAGE and inverted.apply_coords(IMAGE) is IMAGE
    assert isinstance(inverted.inverse(), T.NoOpTransform)
    grey = T.PILColorTransform(lambda picture: picture.convert("L"))
    np.testing.assert_array_equal(grey.apply_image(IMAGE), Image.fromarray(IMAGE).convert("L"))
    with pytest.raises(ValueError):
        T.ColorTransform(3)


@pytest.mark.parametrize(
    ("image_size", "short", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((100, 400), 800, 1333, (333, 1333)),
        ((333, 333), 32, 1000, (32, 32)),
        ((427, 640), 640, 1024, (640, 959)),
    ],
)
def test_short_sides_are_resized_within_the_limit(
    image_size: tuple[int, int], short: int, longest: int, expected: tuple[int, int]
) -> None:
    assert T.ResizeShortestEdge.get_output_shape(*image_size, short, longest) == expected
    transform = T.ResizeShortestEdge(short, longest).get_transform(np.zeros(image_size))
    assert (transform.new_h, transform.new_w) == expected


def test_drawn_lengths_stay_in_their_range() -> None:
    lengths = {T.ResizeShortestEdge((7, 9)).get_transform(IMAGE).new_h for _ in range(60)}
    assert lengths == {7, 8, 9}
    choice = T.ResizeShortestEdge([7, 12], sample_style="choice")
    assert {choice.get_transform(IMAGE).new_h for _ in range(40)} == {7, 12}
    assert isinstance(T.ResizeShortestEdge(0).get_transform(IMAGE), T.NoOpTransform)
    with pytest.raises(AssertionError):
        T.ResizeShortestEdge((7, 8, 9))


def test_a_fixed_window_is_cropped_and_filled_up() -> None:
    image = np.ones((30, 42, 3), dtype=np.uint8)
    transform = T.FixedSizeCrop((40, 20)).get_transform(image)
    window = transform.apply_image(image)
    assert window.shape == (40, 20, 3)
    assert (window[:30] == 1).all() and (window[30:] == 128).all()
    labels = transform.apply_segmentation(image[:, :, 0])
    assert (labels[:30] == 1).all() and (labels[30:] == 255).all()
    small = T.FixedSizeCrop((40, 20), pad=False).get_transform(image)
    assert small.apply_image(image).shape == (30, 20, 3)


def test_a_crop_lies_within_the_image() -> None:
    image = np.zeros((30, 42))
    kinds = {
        "relative": (0.5, 0.25),
        "relative_range": (0.3, 0.6),
        "absolute": (10, 100),
        "absolute_range": (8, 35),
    }
    for kind, size in kinds.items():
        for _ in range(40):
            crop = T.RandomCrop(kind, size).get_transform(image)
            assert crop.apply_image(image).shape == (crop.h, crop.w), kind
            if kind == "relative":
                assert (crop.h, crop.w) == (15, 11)
            elif kind == "absolute":
                assert (crop.h, crop.w) == (10, 42)
            elif kind == "relative_range":
                assert 9 <= crop.h <= 30 and 25 <= crop.w <= 42
            else:
                assert 8 <= crop.h <= 30 and 8 <= crop.w <= 35


def test_impossible_augmentations_are_refused() -> None:
    for both in (True, False):
        with pytest.raises(ValueError):
            T.RandomFlip(horizontal=both, vertical=both)
    with pytest.raises(AssertionError):
        T.RandomApply(T.NoOpTransform(), prob=1.1)
    with pytest.raises(AssertionError):
        T.RandomCrop("half", (1, 1))
    with pytest.raises(AssertionError):
        T.AugInput("image.png")


def test_augmentations_say_what_they_are() -> None:
    assert str(T.RandomFlip()) == "RandomFlip()"
    assert repr(T.RandomFlip(0.25)) == "RandomFlip(prob=0.25)"
    assert repr(T.RandomContrast(0.5, 2)) == "RandomContrast(intensity_min=0.5, intensity_max=2)"
    listed = T.AugmentationList([T.Resize((3, 4)), T.HFlipTransform(9)])
    assert str(listed) == "AugmentationList[Resize(shape=(3, 4)), HFlipTransform(width=9)]"


class _Shift(T.Augmentation):
    """Looks at two attributes of the input."""

    def __init__(self, by: int) -> None:
        self._init(locals())

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> T.Transform:
        assert image.shape[:2] == sem_seg.shape
        return T.PadTransform(self.by, 0, 0, 0)


def test_each_augmentation_sees_what_the_one_before_has_left() -> None:
    inputs = T.AugInput(
        IMAGE, boxes=np.array([[2.0, 3.0, 10.0, 20.0]]), sem_seg=IMAGE[:, :, 0].copy()
    )
    listed = T.AugmentationList([T.Resize((60, 42)), T.AugmentationList([_Shift(8)])])
    transforms = listed(inputs)
    assert [type(transform) for transform in transforms.transforms] == [
        T.ResizeTransform,
        T.PadTransform,
    ]
    assert inputs.image.shape == (60, 50, 3) and inputs.sem_seg.shape == (60, 50)
    np.testing.assert_allclose(inputs.boxes, [[10, 6, 18, 40]])
    image, again = T.apply_augmentations([T.Resize(20)], IMAGE)
    assert image.shape == (20, 20, 3) and len(again) == 1
    with pytest.raises(AttributeError, match="sem_seg"):
        _Shift(1)(type("Bare", (), {"image": IMAGE})())


def test_arguments_that_have_no_names_are_refused() -> None:
    class Anything(T.Augmentation):
        def get_transform(self, image: np.ndarray, *more: Any) -> T.Transform:
            return T.NoOpTransform()

    with pytest.raises(TypeError):
        Anything()(T.AugInput(IMAGE))


def blended(image: np.ndarray, reference: float | np.ndarray, share: float) -> np.ndarray:
    exact = (1 - share) * np.asarray(reference, dtype=np.float64) + share * image.astype(float)
    return np.clip(exact, 0, 255)


def test_photometric_augmentations_blend_with_their_reference() -> None:
    grey = (IMAGE @ np.array([0.299, 0.587, 0.114]))[:, :, None]
    cases = [
        (T.RandomBrightness, 0.0),
        (T.RandomContrast, IMAGE.mean()),
        (T.RandomSaturation, grey),
    ]
    for augmentation, reference in cases:
        for share in (0.3, 1.0, 1.7):
            changed = augmentation(share, share).get_transform(IMAGE).apply_image(IMAGE)
            expected = blended(IMAGE, reference, share)
            # uint8 cuts the fraction off, float32 may fall below a whole number first
            assert np.abs(changed + 0.5 - expected).max() < 0.502, augmentation


AUGMENTATIONS = {
    "flip": T.RandomFlip(0.5),
    "flip_down": T.RandomFlip(0.5, horizontal=False, vertical=True),
    "resize_range": T.ResizeShortestEdge((10, 50), 60),
    "resize_choice": T.ResizeShortestEdge((10, 20, 50), 60, "choice"),
    "resize_scale": T.ResizeScale(0.2, 2.0, 36, 36),
    "fixed_crop": T.FixedSizeCrop((24, 48)),
    "crop_relative": T.RandomCrop("relative_range", (0.3, 0.5)),
    "crop_absolute": T.RandomCrop("absolute_range", (10, 36)),
    "extent": T.RandomExtent((0.6, 1.4), (0.3, 0.2)),
    "rotation": T.RandomApply(T.RotationTransform(30, 42, 33), 0.7),
    "rotation_about_a_point": T.AugmentationList(
        [T.RotationTransform(30, 42, -70, expand=False, center=(9, 20)), T.RandomFlip()]
    ),
    "apply": T.RandomApply(T.RandomContrast(0.4, 1.8), 0.5),
    "brightness": T.RandomBrightness(0.4, 1.8),
    "saturation": T.RandomSaturation(0.4, 1.8),
}


def test_drawn_transforms_equal_those_of_the_real_detectron2(stored) -> None:
    labels = (IMAGE[:, :, 0] // 60).copy()
    corners = np.array([[0.0, 0.0], [42.0, 30.0], [10.0, 25.0]])
    ours = {}
    for name, augmentation in AUGMENTATIONS.items():
        np.random.seed(17)
        images, points, segmentations = [], [], []
        for _ in range(4):
            transform = augmentation(T.AugInput(IMAGE))
            images.append(transform.apply_image(IMAGE)[::5, ::6].ravel())
            points.append(transform.apply_coords(corners.copy()))
            segmentations.append(transform.apply_segmentation(labels)[::3, ::3].ravel())
        ours[f"{name}/image"] = np.concatenate(images)
        ours[f"{name}/points"] = np.concatenate(points)
        ours[f"{name}/labels"] = np.concatenate(segmentations)
        ours[f"{name}/numpy_afterwards"] = np.random.randint(2**31, size=1)
    for name, answer in stored("transforms", ours).items():
        if name.endswith("points"):
            np.testing.assert_allclose(ours[name], answer, rtol=1e-6, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(ours[name], answer, err_msg=name)
