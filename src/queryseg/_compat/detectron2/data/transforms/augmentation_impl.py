"""The augmentations. All chance comes from the global generator of numpy."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import (
    BlendTransform,
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL import Image

from .augmentation import Augmentation, _transform_to_aug
from .transform import ExtentTransform, ResizeTransform

__all__ = [
    "FixedSizeCrop",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomExtent",
    "RandomFlip",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
]

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey (ITU-R BT.601)


class RandomApply(Augmentation):
    """Apply an augmentation or transform with probability `prob`, else do nothing."""

    def __init__(self, tfm_or_aug: Transform | Augmentation, prob: float = 0.5) -> None:
        assert 0.0 <= prob <= 1.0, f"a probability lies in [0, 1], not at {prob}"
        self.aug = _transform_to_aug(tfm_or_aug)
        self.prob = prob

    def get_transform(self, *args: Any) -> Transform:
        return self.aug.get_transform(*args) if self._draw() else NoOpTransform()

    def __call__(self, aug_input: Any) -> Transform:
        return self.aug(aug_input) if self._draw() else NoOpTransform()

    def _draw(self) -> bool:
        return bool(self._rand_range() < self.prob)


class RandomFlip(Augmentation):
    """Mirror the image with probability `prob`, left-right or, if `vertical`, upside down.

    Raises:
        ValueError: both or neither of `horizontal` and `vertical`.
    """

    def __init__(
        self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False
    ) -> None:
        if horizontal == vertical:
            raise ValueError("Choose one of horizontal and vertical; for both use two RandomFlip.")
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class Resize(Augmentation):
    """Resize to (height, width), or to a square if `shape` is one number."""

    def __init__(self, shape: int | tuple[int, int], interp: int = Image.BILINEAR) -> None:
        self.shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        return ResizeTransform(*image.shape[:2], *self.shape, self.interp)


class ResizeShortestEdge(Augmentation):
    """Resize the short side to a drawn length, or less where the long side would pass `max_size`.

    Args:
        short_edge_length: for "range" the first and last length, for "choice" all lengths; one
            number is that length always. A drawn 0 leaves the image as it is.
        max_size: the most pixels for the long side.
        sample_style: "range" or "choice".
        interp: Pillow interpolation.
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = Image.BILINEAR,
    ) -> None:
        assert sample_style in ("range", "choice"), sample_style
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        self._init(locals())
        self.is_range = sample_style == "range"
        assert not self.is_range or len(short_edge_length) == 2, (
            f"a range has two ends, but short_edge_length is {short_edge_length}"
        )

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        if self.is_range:
            shortest, longest = self.short_edge_length
            size = np.random.randint(shortest, longest + 1)
        else:
            size = np.random.choice(self.short_edge_length)
        if size == 0:
            return NoOpTransform()
        new_height, new_width = self.get_output_shape(height, width, size, self.max_size)
        return ResizeTransform(height, width, new_height, new_width, self.interp)

    @staticmethod
    def get_output_shape(
        oldh: int, oldw: int, short_edge_length: int, max_size: int
    ) -> tuple[int, int]:
        """(height, width) after resizing an image of (oldh, oldw), sides rounded half up."""
        short = short_edge_length * 1.0
        scale = short / min(oldh, oldw)
        new_height, new_width = (short, scale * oldw) if oldh < oldw else (scale * oldh, short)
        longest = max(new_height, new_width)
        if longest > max_size:
            shrink = max_size * 1.0 / longest
            new_height, new_width = new_height * shrink, new_width * shrink
        return int(new_height + 0.5), int(new_width + 0.5)


class ResizeScale(Augmentation):
    """Resize to fit into a target box scaled by a factor drawn from [min_scale, max_scale).

    The first half of large-scale jittering; `FixedSizeCrop` is the second.
    """

    def __init__(
        self,
        min_scale: float,
        max_scale: float,
        target_height: int,
        target_width: int,
        interp: int = Image.BILINEAR,
    ) -> None:
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        return self._get_resize(image, np.random.uniform(self.min_scale, self.max_scale))

    def _get_resize(self, image: np.ndarray, scale: float) -> Transform:
        height, width = image.shape[:2]
        factor = min(self.target_height * scale / height, self.target_width * scale / width)
        new_height, new_width = int(np.round(height * factor)), int(np.round(width * factor))
        return ResizeTransform(height, width, new_height, new_width, self.interp)


class FixedSizeCrop(Augmentation):
    """Cut out a window of fixed size at a random place; fill up smaller images right and below.

    Args:
        crop_size: (height, width).
        pad: fill up to the size; otherwise smaller images stay smaller.
        pad_value: added pixels of the image.
        seg_pad_value: added pixels of masks.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        pad: bool = True,
        pad_value: float = 128.0,
        seg_pad_value: int = 255,
    ) -> None:
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> TransformList:
        transforms = [self._get_crop(image)]
        if self.pad:
            transforms.append(self._get_pad(image))
        return TransformList(transforms)

    def _get_crop(self, image: np.ndarray) -> Transform:
        """One drawn number places the window along both axes."""
        (height, width), (crop_height, crop_width) = image.shape[:2], self.crop_size
        room = np.maximum([height - crop_height, width - crop_width], 0)
        y0, x0 = np.round(room * np.random.uniform(0.0, 1.0)).astype(int)
        return CropTransform(x0, y0, crop_width, crop_height, width, height)

    def _get_pad(self, image: np.ndarray) -> Transform:
        (height, width), (crop_height, crop_width) = image.shape[:2], self.crop_size
        return PadTransform(
            x0=0,
            y0=0,
            x1=max(crop_width - width, 0),
            y1=max(crop_height - height, 0),
            orig_w=min(width, crop_width),
            orig_h=min(height, crop_height),
            pad_value=self.pad_value,
            seg_pad_value=self.seg_pad_value,
        )


class RandomCrop(Augmentation):
    """Cut out a window at a random place.

    Args:
        crop_type: how `crop_size` = (a, b) gives the window in an image of (height, width):
            "relative": (a * height, b * width);
            "relative_range": the same with factors drawn from [a, 1) and [b, 1);
            "absolute": (a, b) pixels, or less in smaller images;
            "absolute_range": both sides drawn from [a, b] pixels, or less in smaller images.
        crop_size: two numbers.
    """

    def __init__(self, crop_type: str, crop_size: tuple[float, float]) -> None:
        assert crop_type in ("relative_range", "relative", "absolute", "absolute_range"), crop_type
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        crop_height, crop_width = self.get_crop_size((height, width))
        assert crop_height <= height and crop_width <= width, f"{self} gives more than the image"
        y0 = np.random.randint(height - crop_height + 1)
        x0 = np.random.randint(width - crop_width + 1)
        return CropTransform(x0, y0, crop_width, crop_height)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the window in an image of (height, width)."""
        height, width = image_size
        if self.crop_type == "absolute":
            return min(self.crop_size[0], height), min(self.crop_size[1], width)
        if self.crop_type == "absolute_range":
            low, high = self.crop_size
            assert low <= high, f"crop_size {self.crop_size} is no range"
            crop_height = np.random.randint(min(height, low), min(height, high) + 1)
            crop_width = np.random.randint(min(width, low), min(width, high) + 1)
            return crop_height, crop_width
        factors = self.crop_size
        if self.crop_type == "relative_range":
            lowest = np.asarray(factors, dtype=np.float32)
            factors = lowest + np.random.rand(2) * (1 - lowest)
        return int(height * factors[0] + 0.5), int(width * factors[1] + 0.5)


class RandomExtent(Augmentation):
    """Cut out a rectangle that may be larger than the image and may lie partly outside of it.

    Args:
        scale_range: smallest and largest side of the rectangle, in sides of the image.
        shift_range: how far its centre may move along x and y, in sides of the image.
    """

    def __init__(self, scale_range: tuple[float, float], shift_range: tuple[float, float]) -> None:
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        rect = np.array([-0.5 * width, -0.5 * height, 0.5 * width, 0.5 * height])
        rect *= np.random.uniform(self.scale_range[0], self.scale_range[1])
        rect[0::2] += self.shift_range[0] * width * (np.random.rand() - 0.5)
        rect[1::2] += self.shift_range[1] * height * (np.random.rand() - 0.5)
        rect[0::2] += 0.5 * width
        rect[1::2] += 0.5 * height
        output_size = (int(rect[3] - rect[1]), int(rect[2] - rect[0]))
        return ExtentTransform(src_rect=tuple(rect), output_size=output_size)


class _RandomIntensity(Augmentation):
    """Blend the image with a reference; the share of the image is drawn from the given range."""

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        self._init(locals())

    def _blend(self, reference: np.ndarray | float) -> Transform:
        share = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(src_image=reference, src_weight=1 - share, dst_weight=share)


class RandomContrast(_RandomIntensity):
    """Move pixels towards (share < 1) or away from (share > 1) the mean of the image."""

    def get_transform(self, image: np.ndarray) -> Transform:
        return self._blend(image.mean())


class RandomBrightness(_RandomIntensity):
    """Make the image darker (share < 1) or brighter (share > 1)."""

    def get_transform(self, image: np.ndarray) -> Transform:
        return self._blend(0)


class RandomSaturation(_RandomIntensity):
    """Move an RGB image towards (share < 1) or away from (share > 1) its grey version."""

    def get_transform(self, image: np.ndarray) -> Transform:
        assert image.shape[-1] == 3, f"saturation needs three channels, not {image.shape[-1]}"
        return self._blend(image.dot(LUMA)[:, :, None])
