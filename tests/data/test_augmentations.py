"""Augmentations against the definitions in the papers and against moved pixels."""

import colorsys
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from queryseg.data.augmentations import (
    ColourJitterTransform,
    RandomChoice,
    RandomColourJitter,
    RandomRotation90,
    Rotate90Transform,
    large_scale_jitter,
    multi_scale,
)

IMAGE = np.random.RandomState(0).randint(0, 256, (12, 20, 3), dtype=np.uint8)


def augmented(augmentation: T.Augmentation, image: np.ndarray = IMAGE) -> np.ndarray:
    aug_input = T.AugInput(image)
    augmentation(aug_input)
    return aug_input.image


@pytest.mark.parametrize("turns", range(-1, 5))
def test_a_quarter_turn_moves_points_with_their_pixels_and_back(turns: int) -> None:
    turn = Rotate90Transform(turns, 12, 20)
    turned = turn.apply_image(IMAGE)
    ys, xs = np.mgrid[0:12, 0:20]
    centres = np.stack([xs.reshape(-1), ys.reshape(-1)], axis=1) + 0.5
    moved = turn.apply_coords(centres.copy())
    at = np.floor(moved).astype(int)
    np.testing.assert_array_equal(turned[at[:, 1], at[:, 0]], IMAGE.reshape(-1, 3))
    np.testing.assert_array_equal(turn.inverse().apply_image(turned), IMAGE)
    np.testing.assert_array_equal(turn.inverse().apply_coords(moved.copy()), centres)


def test_one_quarter_turn_goes_counter_clockwise() -> None:
    turned = Rotate90Transform(1, 12, 20).apply_image(IMAGE)
    np.testing.assert_array_equal(turned[-1, 0], IMAGE[0, 0])
    np.testing.assert_array_equal(turned[0, 0], IMAGE[0, -1])


def test_quarter_turns_are_equally_frequent() -> None:
    turns = [RandomRotation90().get_transform(IMAGE).quarter_turns for _ in range(2000)]
    assert np.abs(np.bincount(turns, minlength=4) / 2000 - 0.25).max() < 0.04


def test_the_choice_follows_one_draw_of_numpy() -> None:
    choice = RandomChoice([T.Resize((5, 5))], [T.Resize((7, 7))])
    sizes, draws = [], []
    for seed in range(30):
        np.random.seed(seed)
        draws.append(np.random.rand())
        after = np.random.rand()
        np.random.seed(seed)
        sizes.append(augmented(choice).shape[0])
        assert np.random.rand() == after  # no second draw
    assert sizes == [5 if draw > 0.5 else 7 for draw in draws]
    assert {5, 7} == set(sizes)


def test_the_choice_keeps_its_probability_and_its_order() -> None:
    crop = [T.ResizeShortestEdge([30], sample_style="choice"), T.Resize((9, 11))]
    assert augmented(RandomChoice([], crop, prob_first=0.0)).shape == (9, 11, 3)
    assert augmented(RandomChoice([], crop, prob_first=1.0)).shape == IMAGE.shape


def test_the_choice_moves_points_as_it_moves_the_image() -> None:
    choice = RandomChoice([T.Resize((24, 20))], [T.Resize((24, 20)), T.Resize((6, 40))], 0.0)
    aug_input = T.AugInput(IMAGE)
    transforms = T.AugmentationList([choice])(aug_input)
    np.testing.assert_allclose(transforms.apply_coords(np.array([[10.0, 6.0]])), [[20.0, 3.0]])


def test_augmentations_build_from_a_saved_config(tmp_path: Path) -> None:
    first = [L(T.ResizeShortestEdge)(short_edge_length=[8, 16], sample_style="choice")]
    second = [L(T.RandomCrop)(crop_type="absolute_range", crop_size=[4, 6]), *first]
    node = L(T.AugmentationList)(
        augs=[
            L(RandomChoice)(first=first, second=second),
            L(RandomColourJitter)(contrast=(0.8, 1.2)),
            L(RandomRotation90)(),
            L(large_scale_jitter)(image_size=10),
        ]
    )
    LazyConfig.save(OmegaConf.create({"augmentation": node}), str(tmp_path / "saved.yaml"))
    rebuilt = LazyConfig.load(str(tmp_path / "saved.yaml"))
    for config in (node, rebuilt.augmentation):
        np.random.seed(3)
        found = augmented(instantiate(config))
        assert found.shape == (10, 10, 3)
    np.random.seed(3)
    np.testing.assert_array_equal(augmented(instantiate(node)), found)


def test_large_scale_jitter_gives_a_square_and_pads_right_and_bottom() -> None:
    np.random.seed(0)
    shapes = {augmented(large_scale_jitter(16)).shape for _ in range(20)}
    assert shapes == {(16, 16, 3)}
    small = augmented(large_scale_jitter(16, min_scale=0.5, max_scale=0.5))
    assert (small[8:] == 128).all()  # the grey of the padding
    assert (small[:5, :8] != 128).any()
    shapes = {augmented(large_scale_jitter(16, 0.5, 0.5, pad=False)).shape}
    assert shapes == {(5, 8, 3)}


def naive_jitter(pixel: list[float], jitter: ColourJitterTransform) -> list[float]:
    """The same distortion in floats, without rounding in between."""

    def linear(values: list[float], factor: float, offset: float) -> list[float]:
        return [min(max(v * factor + offset, 0.0), 255.0) for v in values]

    values = linear(pixel, 1.0, jitter.brightness)
    if jitter.contrast_first:
        values = linear(values, jitter.contrast, 0.0)
    h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in values))
    s = min(s * jitter.saturation, 1.0)
    values = [255 * c for c in colorsys.hsv_to_rgb((h + jitter.hue / 180) % 1.0, s, v)]
    return values if jitter.contrast_first else linear(values, jitter.contrast, 0.0)


@pytest.mark.parametrize("contrast_first", [True, False])
@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_colour_jitter_equals_float_arithmetic(image_format: str, contrast_first: bool) -> None:
    # Muted colours, so that 8-bit hues (two degrees) and saturations stay meaningful.
    image = np.random.RandomState(1).randint(60, 200, (8, 8, 3), dtype=np.uint8)
    jitter = ColourJitterTransform(12.0, 0.9, 1.2, 10, contrast_first, image_format)
    order = [0, 1, 2] if image_format == "RGB" else [2, 1, 0]
    found = jitter.apply_image(image)[:, :, order].astype(np.float64)
    rgb = image[:, :, order].astype(np.float64)
    expected = np.array([[naive_jitter(list(p), jitter) for p in row] for row in rgb])
    assert np.abs(found - expected).max() < 6
    assert np.abs(found - expected).mean() < 1.5
    assert np.abs(expected - rgb).mean() > 8  # the distortion is much larger than that


def test_colour_jitter_without_amounts_changes_nothing() -> None:
    still = ColourJitterTransform(0.0, 1.0, 1.0, 0, True, "RGB")
    np.testing.assert_array_equal(still.apply_image(IMAGE), IMAGE)
    points = np.array([[1.0, 2.0]])
    np.testing.assert_array_equal(still.apply_coords(points), points)
    np.testing.assert_array_equal(still.apply_segmentation(IMAGE[:, :, 0]), IMAGE[:, :, 0])


def test_colour_jitter_draws_within_its_limits_and_uses_each_change_half_the_time() -> None:
    drawn = [RandomColourJitter().get_transform(IMAGE) for _ in range(1000)]
    assert all(abs(t.brightness) <= 32 and abs(t.hue) <= 18 for t in drawn)
    assert all(0.5 <= t.contrast <= 1.5 and 0.5 <= t.saturation <= 1.5 for t in drawn)
    for used in (
        [t.brightness != 0 for t in drawn],
        [t.contrast != 1 for t in drawn],
        [t.saturation != 1 for t in drawn],
        [t.hue != 0 for t in drawn],
        [t.contrast_first for t in drawn],
    ):
        assert 0.42 < np.mean(used) < 0.56
    with pytest.raises(ValueError, match="image_format"):
        RandomColourJitter("HSV")


def test_a_transform_is_the_same_each_time_it_is_applied() -> None:
    for _ in range(5):
        jitter = RandomColourJitter().get_transform(IMAGE)
        np.testing.assert_array_equal(jitter.apply_image(IMAGE), jitter.apply_image(IMAGE))


def test_multi_scale_resizes_all_and_crops_half_of_the_images() -> None:
    image = np.zeros((300, 400, 3), dtype=np.uint8)

    def sizes(**options: object) -> set[int]:
        augment = multi_scale([480, 800], **options)
        found = set()
        for seed in range(30):
            np.random.seed(seed)
            aug_input = T.AugInput(image)
            transforms = augment(aug_input)
            short = min(aug_input.image.shape[:2])
            assert short in (480, 800) or max(aug_input.image.shape[:2]) == 1333
            found.add(
                len([t for t in transforms.transforms if type(t).__name__ == "CropTransform"])
            )
        return found

    assert sizes() == {0}
    assert sizes(crop=True) == {0, 1}


@pytest.mark.parametrize(
    ("options", "shorter"), [({}, {333}), ({"crop_max_size": 4200}, {400, 500})]
)
def test_wide_images_are_shrunk_before_the_crop_only_as_far_as_asked(
    options: dict[str, int], shorter: set[int]
) -> None:
    augment = multi_scale([480], crop=True, crop_short_edges=(400, 500), **options)
    found = set()
    for seed in range(40):
        np.random.seed(seed)
        transforms = augment(T.AugInput(np.zeros((30, 120, 3), dtype=np.uint8))).transforms
        names = [type(transform).__name__ for transform in transforms]
        if "CropTransform" in names:
            found.add(transforms[names.index("CropTransform") - 1].new_h)
    assert found == shorter
