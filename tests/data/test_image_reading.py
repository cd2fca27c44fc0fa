"""Images of every kind become upright 8-bit colour, or one clear error."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from queryseg.data.image import BadImageError, read_image, upright_size

RNG = np.random.RandomState(0)
COLOUR = RNG.randint(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.randint(0, 256, (6, 9), dtype=np.uint8)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def three(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=2)


def test_colour_comes_in_the_asked_order(tmp_path: Path) -> None:
    path = saved(Image.fromarray(COLOUR), tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path), COLOUR)
    bgr = read_image(path, "BGR")
    np.testing.assert_array_equal(bgr, COLOUR[:, :, [2, 1, 0]])
    assert bgr.flags.c_contiguous
    with pytest.raises(ValueError, match="image_format"):
        read_image(path, "L")


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    path = saved(Image.fromarray(GREY), tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path), three(GREY))


def test_alpha_is_dropped(tmp_path: Path) -> None:
    alpha = RNG.randint(0, 256, (6, 9, 1), dtype=np.uint8)
    path = saved(Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)), tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path), COLOUR)
    path = saved(Image.fromarray(np.dstack([GREY, alpha])), tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(path), three(GREY))


def test_palette_and_one_bit_images_get_their_colours(tmp_path: Path) -> None:
    flags = COLOUR // 128 * 255
    path = saved(Image.fromarray(flags).quantize(8), tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path), flags)
    path = saved(Image.fromarray(GREY > 128), tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(path), three(np.where(GREY > 128, 255, 0)))


def test_sixteen_bits_keep_their_upper_byte(tmp_path: Path) -> None:
    deep = RNG.randint(0, 65536, (6, 9)).astype(np.uint16)
    for name in ("a.png", "a.tif"):
        path = saved(Image.fromarray(deep), tmp_path / name)
        np.testing.assert_array_equal(read_image(path), three(deep // 256))
    wide = Image.fromarray(deep.astype(np.int32))
    assert wide.mode == "I"
    np.testing.assert_array_equal(read_image(saved(wide, tmp_path / "b.tif")), three(deep // 256))


def test_float_images_are_scaled_if_they_stay_below_one(tmp_path: Path) -> None:
    values = RNG.rand(6, 9).astype(np.float32)
    path = saved(Image.fromarray(values), tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(path), three((values * 255.0).astype(np.uint8)))
    path = saved(Image.fromarray(values * 300), tmp_path / "b.tif")
    assert read_image(path).max() == 255


ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    path = with_orientation(tmp_path, orientation)
    expected = ORIENTATIONS[orientation](COLOUR)
    np.testing.assert_array_equal(read_image(path), expected)
    assert upright_size(path) == expected.shape[:2]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_made_without_the_orientation_keep_the_stored_pixels(
    tmp_path: Path, orientation: int
) -> None:
    path = with_orientation(tmp_path, orientation)
    np.testing.assert_array_equal(read_image(path, size_hw=(6, 9)), COLOUR)
    np.testing.assert_array_equal(
        read_image(path, size_hw=(9, 6)), ORIENTATIONS[orientation](COLOUR)
    )


def with_orientation(folder: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(COLOUR), folder / "exif.png", exif=exif)


def test_an_image_of_another_size_than_stated_names_file_id_and_both_sizes(tmp_path: Path) -> None:
    path = saved(Image.fromarray(COLOUR), tmp_path / "a.png")
    with pytest.raises(BadImageError, match=r"image 17 \(.*a\.png\).*9 x 6.*say 9 x 7"):
        read_image(path, size_hw=(7, 9), image_id=17)


def test_files_that_are_no_images_name_file_id_and_cure(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(np.tile(COLOUR, (20, 20, 1))), tmp_path / "whole.jpg")
    contents = {
        "truncated.jpg": whole.read_bytes()[:-900],
        "text.png": b"not an image",
        "empty.png": b"",
        "header.png": b"\x89PNG\r\n\x1a\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadImageError, match=rf"image 5 \(.*{name}\): cannot be read.*Replace"):
            read_image(tmp_path / name, image_id=5)
    with pytest.raises(BadImageError, match=r"image 5 \(.*gone\.png\): no such file\. Check"):
        read_image(tmp_path / "gone.png", image_id=5)


def test_random_damage_gives_pixels_or_the_one_error(tmp_path: Path) -> None:
    images = [Image.fromarray(np.tile(COLOUR, (4, 4, 1))), Image.fromarray(np.tile(GREY, (4, 4)))]
    rng = np.random.RandomState(5)
    outcomes = set()
    for index in range(120):
        kind = ("png", "jpg", "tif", "bmp", "gif")[index % 5]
        path = saved(images[index % 2], tmp_path / f"a.{kind}")
        damaged = bytearray(path.read_bytes())
        for place in rng.randint(0, len(damaged), size=6):
            damaged[place] = rng.randint(256)
        path.write_bytes(bytes(damaged[: rng.randint(1, len(damaged) + 1)]))
        try:
            assert read_image(path).dtype == np.uint8
            outcomes.add("read")
        except BadImageError as error:
            assert path.name in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
