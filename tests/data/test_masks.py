"""Segmentations in the three COCO notations against decoders written out by hand."""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest

from queryseg.data.masks import compressed, decode, rle_fault, rle_runs


def naive_runs(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, starting with background."""
    runs, value = [0], 0
    for pixel in mask.T.reshape(-1):
        if pixel == value:
            runs[-1] += 1
        else:
            runs.append(1)
            value = pixel
    return runs


def random_mask(rng: np.random.RandomState) -> np.ndarray:
    height, width = rng.randint(1, 60, size=2)
    block = int(rng.randint(1, 12))
    coarse = rng.rand(height // block + 1, width // block + 1) < rng.rand()
    return np.kron(coarse, np.ones((block, block)))[:height, :width].astype(np.uint8)


def encoded(mask: np.ndarray) -> dict[str, Any]:
    rle = mask_util.encode(np.asfortranarray(mask))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def test_run_lengths_of_a_compressed_string_equal_those_counted_pixel_by_pixel() -> None:
    rng = np.random.RandomState(0)
    for _ in range(200):
        mask = random_mask(rng)
        assert rle_runs(encoded(mask)["counts"]).tolist() == naive_runs(mask)


def test_long_runs_survive() -> None:
    mask = np.zeros((3000, 4000), dtype=np.uint8)
    mask[1:-1, 1700:3100] = 1
    assert rle_runs(encoded(mask)["counts"])[:2].tolist() == [1700 * 3000 + 1, 2998]


def test_the_three_notations_of_a_mask_decode_to_the_same_pixels() -> None:
    rng = np.random.RandomState(1)
    for _ in range(40):
        mask = random_mask(rng)
        uncompressed = {"size": list(mask.shape), "counts": naive_runs(mask)}
        for notation in (encoded(mask), uncompressed, mask.astype(bool)):
            np.testing.assert_array_equal(decode(notation, *mask.shape), mask.astype(bool))
        assert compressed(uncompressed) == encoded(mask)


def test_a_rectangle_polygon_covers_its_pixels_even_beyond_the_frame() -> None:
    polygon = [[-5.0, 3.0, 6.0, 3.0, 6.0, 30.0, -5.0, 30.0]]
    expected = np.zeros((10, 12), dtype=bool)
    expected[3:, :6] = True
    np.testing.assert_array_equal(decode(polygon, 10, 12), expected)


def test_polygons_of_one_object_are_united() -> None:
    parts = [[0, 0, 4, 0, 4, 4, 0, 4], [6, 6, 9, 6, 9, 9, 6, 9]]
    expected = np.zeros((10, 10), dtype=bool)
    expected[0:4, 0:4] = expected[6:9, 6:9] = True
    np.testing.assert_array_equal(decode(parts, 10, 10), expected)


def test_a_polygon_without_enough_points_has_no_pixels() -> None:
    assert not decode([[1, 1, 5, 5]], 8, 8).any()
    assert not decode([], 8, 8).any()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"size": [7, 5]}, "rle-size"),
        ({"size": None}, "rle-size"),
        ({"counts": None}, "rle-counts"),
        ({"counts": [1, 2, 3]}, "rle-counts"),
        ({"counts": [-1, 36]}, "rle-counts"),
        ({"counts": [10, "a"]}, "rle-counts"),
        ({"counts": [[1, 2], [3]]}, "rle-counts"),
        ({"counts": ""}, "rle-counts"),
        ({"counts": "~~~"}, "rle-counts"),
        ({"counts": "o" * 40}, "rle-counts"),
        ({"counts": [35]}, "empty-mask"),
        ({"counts": [35, 0]}, "empty-mask"),
    ],
)
def test_a_broken_rle_is_recognised(changes: dict[str, Any], kind: str) -> None:
    sound = {"size": [5, 7], "counts": [5, 10, 20]}
    assert rle_fault(sound, 5, 7) is None
    fault = rle_fault({**sound, **changes}, 5, 7)
    assert fault is not None
    assert fault[0] == kind


def test_any_string_of_counts_is_either_sound_or_refused() -> None:
    rng = np.random.RandomState(2)
    refused = 0
    for _ in range(500):
        text = "".join(chr(c) for c in rng.randint(40, 120, size=rng.randint(1, 30)))
        refused += rle_fault({"size": [5, 7], "counts": text}, 5, 7) is not None
    assert refused == 500  # none of them adds up to 35 pixels by chance


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(5, 5\)"):
        decode(np.ones((4, 4), dtype=bool), 5, 5)
    with pytest.raises(ValueError, match="unknown notation"):
        decode("masks/1.png", 5, 5)  # type: ignore[arg-type]
