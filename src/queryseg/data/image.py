"""Reads an image file of any common kind as 8-bit colour."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_16_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
IMAGE_FORMATS = ("RGB", "BGR")


class BadImageError(ValueError):
    """An image file cannot be used; the message names the file, the image id and the cure."""


def read_image(
    file_name: str | Path,
    image_format: str = "RGB",
    size_hw: tuple[int, int] | None = None,
    image_id: int | str | None = None,
) -> np.ndarray:
    """Decode an image upright, in three 8-bit channels.

    The EXIF orientation is applied; where the stated size only fits the pixels as stored, the
    annotations were made without it, and the pixels stay as stored. Grey and palette images become
    colour, alpha is dropped, 16 bits become 8 by dropping the lower byte, and float images with
    values in [0, 1] are scaled to 255.

    Args:
        file_name: of the image.
        image_format: `RGB` or `BGR`, the channel order.
        size_hw: the (height, width) that the annotations state.
        image_id: for the error message.

    Returns:
        (H, W, 3) uint8, contiguous.

    Raises:
        BadImageError: no such file, not an image, truncated, or of another size than stated.
    """
    if image_format not in IMAGE_FORMATS:
        raise ValueError(f"image_format must be one of {IMAGE_FORMATS}, got {image_format!r}")
    name = f"image {image_id} ({file_name})" if image_id is not None else str(file_name)
    try:
        with Image.open(file_name) as opened:
            image = _upright(opened, size_hw, name)
            pixels = _eight_bit_rgb(image)
    except FileNotFoundError as error:
        raise BadImageError(
            f"{name}: no such file. Check the image folder, or take the image out of the json."
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImageError(
            f"{name}: cannot be read ({error}). Replace the file, or take the image out of the "
            "json."
        ) from error
    return np.ascontiguousarray(pixels if image_format == "RGB" else pixels[:, :, ::-1])


def upright_size(file_name: str | Path) -> tuple[int, int]:
    """(height, width) after the EXIF orientation, from the header alone.

    Raises:
        OSError: no such file or not an image.
    """
    with Image.open(file_name) as image:
        width, height = image.size
        swapped = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (width, height) if swapped else (height, width)


def _upright(image: Image.Image, size_hw: tuple[int, int] | None, name: str) -> Image.Image:
    turned = ImageOps.exif_transpose(image)
    if size_hw is None or (turned.height, turned.width) == tuple(size_hw):
        return turned
    if (image.height, image.width) == tuple(size_hw):
        return image
    raise BadImageError(
        f"{name}: the file is {turned.width} x {turned.height} pixels (width x height) but the "
        f"annotations say {size_hw[1]} x {size_hw[0]}. Correct width and height in the json, or "
        "put back the file that was annotated."
    )


def _eight_bit_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in _16_BIT_MODES:
        deep = np.asarray(image).astype(np.int64)
        grey = (np.clip(deep, 0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        scale = 255.0 if values.size and values.max() <= 1.0 else 1.0
        grey = np.clip(values * scale, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))
