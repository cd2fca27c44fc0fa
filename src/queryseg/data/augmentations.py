"""Augmentations that the official recipes use and Detectron2 lacks.

All randomness is numpy's global generator, a fixed number of draws at a time, so a seeded sample is
augmented in the same way wherever it is loaded.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import NoOpTransform, Transform

from queryseg.data.image import BadImageError

HUE_RANGE = 180  # OpenCV stores half degrees


def augment(augmentations: Any, aug_input: Any, name: str) -> Any:
    """Apply augmentations, and name the image that they cannot be applied to.

    Args:
        augmentations: Detectron2's `AugmentationList`.
        aug_input: its `AugInput`, changed in place.
        name: of the image, for the error message.

    Returns:
        the transforms that were applied.

    Raises:
        BadImageError: no pixel would be left, as of a very long and thin image that is scaled down.
    """
    height, width = aug_input.image.shape[:2]
    try:
        return augmentations(aug_input)
    except ValueError as error:
        raise BadImageError(
            f"{name}: {width} x {height} pixels (width x height) cannot be resized and augmented "
            f"as the config says ({error}). Crop or pad the image, or leave it out."
        ) from error


class RandomChoice(T.Augmentation):
    """One of two lists of augmentations, chosen by a single draw.

    FastInst and the DETR family resize in one list and resize, crop and resize in the other.

    Args:
        first: taken when `np.random.rand() > 1 - prob_first`.
        second: taken otherwise.
        prob_first: probability of `first`.
    """

    def __init__(self, first: Sequence[Any], second: Sequence[Any], prob_first: float = 0.5):
        super().__init__()
        self.first = T.AugmentationList(list(first))
        self.second = T.AugmentationList(list(second))
        self.prob_first = prob_first

    def __call__(self, aug_input: Any) -> Any:
        chosen = self.first if np.random.rand() > 1 - self.prob_first else self.second
        return chosen(aug_input)


class Rotate90Transform(Transform):
    """Turns an image by quarter turns, counter-clockwise.

    Args:
        quarter_turns: 0 to 3.
        height: of the image before.
        width: of the image before.
    """

    def __init__(self, quarter_turns: int, height: int, width: int):
        super().__init__()
        self.quarter_turns = quarter_turns % 4
        self.height = height
        self.width = width

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Turn (H, W) or (H, W, C)."""
        return np.rot90(img, self.quarter_turns)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Turn points (N, 2) as (x, y)."""
        x, y = coords[:, 0], coords[:, 1]
        turned = (
            (x, y),
            (y, self.width - x),
            (self.width - x, self.height - y),
            (self.height - y, x),
        )[self.quarter_turns]
        return np.stack(turned, axis=1)

    def inverse(self) -> "Rotate90Transform":
        """The turn back."""
        size = (self.height, self.width)
        height, width = size[::-1] if self.quarter_turns % 2 else size
        return Rotate90Transform(-self.quarter_turns, height, width)


class RandomRotation90(T.Augmentation):
    """A random number of quarter turns, each with probability 1/4."""

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw the turn for an image (H, W, C)."""
        return Rotate90Transform(int(np.random.randint(4)), image.shape[0], image.shape[1])


class ColourJitterTransform(Transform):
    """The colour distortion of SSD (section 2.2 of its paper) with given amounts.

    Args:
        brightness: added to every channel.
        contrast: factor of every channel.
        saturation: factor of the HSV saturation.
        hue: added to the HSV hue, in units of two degrees.
        contrast_first: whether contrast comes before saturation and hue, or after.
        image_format: `RGB` or `BGR`.
    """

    def __init__(
        self,
        brightness: float,
        contrast: float,
        saturation: float,
        hue: int,
        contrast_first: bool,
        image_format: str,
    ):
        super().__init__()
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.contrast_first = contrast_first
        self.image_format = image_format

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Distort an image (H, W, 3) uint8."""
        img = _linear(img, 1.0, self.brightness)
        if self.contrast_first:
            img = _linear(img, self.contrast, 0.0)
        img = self._saturate_and_turn(img)
        return img if self.contrast_first else _linear(img, self.contrast, 0.0)

    def _saturate_and_turn(self, img: np.ndarray) -> np.ndarray:
        if self.saturation == 1.0 and self.hue == 0:
            return img
        rgb = self.image_format == "RGB"
        there = cv2.COLOR_RGB2HSV if rgb else cv2.COLOR_BGR2HSV
        back = cv2.COLOR_HSV2RGB if rgb else cv2.COLOR_HSV2BGR
        hsv = cv2.cvtColor(np.ascontiguousarray(img), there)
        hsv[:, :, 1] = _linear(hsv[:, :, 1], self.saturation, 0.0)
        hsv[:, :, 0] = (hsv[:, :, 0].astype(np.int64) + self.hue) % HUE_RANGE
        return cv2.cvtColor(hsv, back)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Leave points where they are."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Leave masks as they are."""
        return segmentation

    def inverse(self) -> Transform:
        """Nothing: geometry does not change."""
        return NoOpTransform()


class RandomColourJitter(T.Augmentation):
    """SSD's colour distortion: each of four changes with probability 1/2, contrast first or last.

    Args:
        image_format: `RGB` or `BGR`.
        brightness: largest amount added or taken, of 255.
        contrast: (least, largest) factor.
        saturation: (least, largest) factor.
        hue: largest turn, in units of two degrees.
    """

    def __init__(
        self,
        image_format: str = "RGB",
        brightness: float = 32.0,
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5),
        hue: int = 18,
    ):
        super().__init__()
        if image_format not in ("RGB", "BGR"):
            raise ValueError(f"image_format must be RGB or BGR, got {image_format!r}")
        self.image_format = image_format
        self.brightness = brightness
        self.contrast = tuple(contrast)
        self.saturation = tuple(saturation)
        self.hue = hue

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw the amounts."""
        use_brightness, use_contrast, use_saturation, use_hue, contrast_first = (
            np.random.rand(5) < 0.5
        )
        brightness = np.random.uniform(-self.brightness, self.brightness)
        contrast = np.random.uniform(self.contrast[0], self.contrast[1])
        saturation = np.random.uniform(self.saturation[0], self.saturation[1])
        hue = int(np.random.randint(-self.hue, self.hue + 1))
        return ColourJitterTransform(
            brightness=brightness if use_brightness else 0.0,
            contrast=contrast if use_contrast else 1.0,
            saturation=saturation if use_saturation else 1.0,
            hue=hue if use_hue else 0,
            contrast_first=bool(contrast_first),
            image_format=self.image_format,
        )


def multi_scale(
    short_edge_length: Sequence[int],
    max_size: int = 1333,
    sample_style: str = "choice",
    crop: bool = False,
    crop_short_edges: Sequence[int] = (400, 500, 600),
    crop_size: Sequence[int] = (384, 600),
    crop_max_size: int | None = None,
) -> T.AugmentationList:
    """Flip, then resize to a random scale; with `crop`, half of the images as DETR crops them.

    Those are resized, cut to a random window and resized once more.

    Args:
        short_edge_length: the scales to choose from, or the first and last of a range.
        max_size: longest side.
        sample_style: "choice" or "range" (of whole numbers).
        crop: whether half of the images are cropped.
        crop_short_edges: scales before the crop.
        crop_size: least and largest side of the window, in pixels.
        crop_max_size: longest side before the crop; by default `max_size`. DETR has no limit there.
    """
    resize = T.ResizeShortestEdge(list(short_edge_length), max_size, sample_style)
    flip = T.RandomFlip()
    if not crop:
        return T.AugmentationList([flip, resize])
    before = T.ResizeShortestEdge(list(crop_short_edges), crop_max_size or max_size, "choice")
    window = T.RandomCrop("absolute_range", tuple(crop_size))
    return T.AugmentationList([flip, RandomChoice([resize], [before, window, resize])])


def large_scale_jitter(
    image_size: int = 1024, min_scale: float = 0.1, max_scale: float = 2.0, pad: bool = True
) -> T.AugmentationList:
    """Large-scale jitter: scale by a random factor, then crop (and pad) to a square.

    Args:
        image_size: side of the square, in pixels.
        min_scale: least factor of the size that fits the square.
        max_scale: largest factor.
        pad: whether smaller images are filled up (right and bottom, with grey).
    """
    return T.AugmentationList(
        [
            T.ResizeScale(min_scale, max_scale, image_size, image_size),
            T.FixedSizeCrop((image_size, image_size), pad=pad),
        ]
    )


def _linear(values: np.ndarray, factor: float, offset: float) -> np.ndarray:
    if factor == 1.0 and offset == 0.0:
        return values
    return np.clip(values.astype(np.float32) * factor + offset, 0, 255).astype(np.uint8)
