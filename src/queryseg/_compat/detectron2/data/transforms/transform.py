"""Transforms beyond those of fvcore: resizing, extent, rotation and colour.

Images are (H, W) or (H, W, C) arrays, coordinates (N, 2) arrays of x, y in pixels, where 0 is the
outer edge of the first pixel.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms.transform import CropTransform, NoOpTransform, Transform, TransformList
from PIL import Image

__all__ = [
    "ColorTransform",
    "ExtentTransform",
    "PILColorTransform",
    "ResizeTransform",
    "RotationTransform",
]

_TORCH_MODE = {Image.NEAREST: "nearest", Image.BILINEAR: "bilinear", Image.BICUBIC: "bicubic"}


def _through_pil(change: Callable[[Image.Image], Image.Image], img: np.ndarray) -> np.ndarray:
    """Apply a Pillow operation; an image with one channel keeps its channel axis."""
    if img.ndim > 2 and img.shape[2] == 1:
        return np.asarray(change(Image.fromarray(img[:, :, 0])))[:, :, None]
    return np.asarray(change(Image.fromarray(img)))


class ExtentTransform(Transform):
    """Cut a rectangle out of an image and scale it to a size; outside of the image is black.

    Args:
        src_rect: x0, y0, x1, y1 of the rectangle; it may reach outside the image.
        output_size: (height, width) of the result.
        interp: Pillow interpolation, for masks too: the real Detectron2 asks for the nearest pixel
            there, but Pillow's NEAREST is 0 and counts as not given.
        fill: handed to Pillow, which ignores it here.
    """

    def __init__(
        self,
        src_rect: tuple[float, float, float, float],
        output_size: tuple[int, int],
        interp: int = Image.BILINEAR,
        fill: int = 0,
    ) -> None:
        super().__init__()
        self.src_rect = src_rect
        self.output_size = output_size
        self.interp = interp
        self.fill = fill

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        height, width = self.output_size
        return _through_pil(
            lambda picture: picture.transform(
                size=(width, height),
                method=Image.EXTENT,
                data=self.src_rect,
                resample=self.interp,
                fill=self.fill,
            ),
            img,
        )

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map the centre of the rectangle to the centre of the result, in float32."""
        height, width = self.output_size
        x0, y0, x1, y1 = self.src_rect
        moved = coords.astype(np.float32)
        for axis, (start, end, length) in enumerate(((x0, x1, width), (y0, y1, height))):
            moved[:, axis] -= 0.5 * (start + end)
            moved[:, axis] *= length / (end - start)
            moved[:, axis] += 0.5 * length
        return moved


class ResizeTransform(Transform):
    """Resize: uint8 images by Pillow (smoothed when made smaller), float images by torch (not).

    Args:
        h, w: size of the image.
        new_h, new_w: size of the result.
        interp: Pillow interpolation for images, bilinear unless given; masks always take the
            nearest pixel.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        super().__init__()
        self.h = h
        self.w = w
        self.new_h = new_h
        self.new_w = new_w
        self.interp = Image.BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        assert img.shape[:2] == (self.h, self.w), f"{img.shape[:2]} is not {(self.h, self.w)}"
        method = self.interp if interp is None else interp
        if img.dtype == np.uint8:
            size = (self.new_w, self.new_h)
            return _through_pil(lambda picture: picture.resize(size, method), img)
        return self._resize_float(img, _TORCH_MODE[method])

    def _resize_float(self, img: np.ndarray, mode: str) -> np.ndarray:
        channels = img.shape[2:]
        planes = torch.from_numpy(np.ascontiguousarray(img)).view(self.h, self.w, 1, -1)
        resized = F.interpolate(
            planes.permute(2, 3, 0, 1),
            (self.new_h, self.new_w),
            mode=mode,
            align_corners=None if mode == "nearest" else False,
        )
        return resized.permute(2, 3, 0, 1).reshape(self.new_h, self.new_w, *channels).numpy()

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        coords[:, 0] = coords[:, 0] * (self.new_w / self.w)
        coords[:, 1] = coords[:, 1] * (self.new_h / self.h)
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, interp=Image.NEAREST)

    def inverse(self) -> "ResizeTransform":
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)


class RotationTransform(Transform):
    """Rotate counter-clockwise. Needs OpenCV.

    Args:
        h, w: size of the image.
        angle: degrees.
        expand: make the result large enough for the whole rotated image; otherwise it keeps the
            size of the image and loses the corners.
        center: (x, y) to rotate around, the centre of the image unless given; without effect when
            the result is expanded.
        interp: OpenCV interpolation for images, linear unless given.
    """

    def __init__(
        self,
        h: int,
        w: int,
        angle: float,
        expand: bool = True,
        center: tuple[float, float] | None = None,
        interp: int | None = None,
    ) -> None:
        import cv2

        super().__init__()
        self.h = h
        self.w = w
        self.angle = angle
        self.expand = expand
        self.image_center = np.array((w / 2, h / 2))
        self.center = self.image_center if center is None else center
        self.interp = cv2.INTER_LINEAR if interp is None else interp
        self.bound_w, self.bound_h = w, h
        if expand:
            cos, sin = abs(np.cos(np.deg2rad(angle))), abs(np.sin(np.deg2rad(angle)))
            bounds = np.rint([h * sin + w * cos, h * cos + w * sin]).astype(int)
            self.bound_w, self.bound_h = bounds
        self.rm_coords = self.create_rotation_matrix()
        # OpenCV places pixel centres at whole numbers, coordinates have them at halves.
        self.rm_image = self.create_rotation_matrix(offset=-0.5)

    def create_rotation_matrix(self, offset: float = 0) -> np.ndarray:
        """The (2, 3) matrix of the rotation where the first pixel's edge lies at `offset`."""
        import cv2

        pivot = (self.center[0] + offset, self.center[1] + offset)
        matrix = cv2.getRotationMatrix2D(pivot, self.angle, 1)
        if self.expand:
            old_center = self.image_center + offset
            new_center = np.array([self.bound_w / 2, self.bound_h / 2]) + offset
            matrix[:, 2] += new_center - cv2.transform(old_center[None, None], matrix)[0, 0]
        return matrix

    def _does_nothing_to(self, data: np.ndarray) -> bool:
        return len(data) == 0 or self.angle % 360 == 0

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        import cv2

        if self._does_nothing_to(img):
            return img
        assert img.shape[:2] == (self.h, self.w), f"{img.shape[:2]} is not {(self.h, self.w)}"
        flags = self.interp if interp is None else interp
        return cv2.warpAffine(img, self.rm_image, (self.bound_w, self.bound_h), flags=flags)

    def apply_coords(self, coords: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
        import cv2

        points = np.asarray(coords, dtype=float)
        if self._does_nothing_to(points):
            return points
        return cv2.transform(points[:, None], self.rm_coords)[:, 0]

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        import cv2

        return self.apply_image(segmentation, interp=cv2.INTER_NEAREST)

    def inverse(self) -> TransformList:
        """Rotate back and cut off what the two expansions added.

        Raises:
            NotImplementedError: without `expand` the corners are lost.
        """
        if not self.expand:
            raise NotImplementedError("A rotation without expand loses corners: no inverse.")
        back = RotationTransform(self.bound_h, self.bound_w, -self.angle, interp=self.interp)
        x0, y0 = (back.bound_w - self.w) // 2, (back.bound_h - self.h) // 2
        return TransformList([back, CropTransform(x0, y0, self.w, self.h)])


class ColorTransform(Transform):
    """A change of colour by any function; coordinates and masks stay as they are.

    Args:
        op: takes and returns an image.

    Raises:
        ValueError: `op` is not callable.
    """

    def __init__(self, op: Callable[[Any], Any]) -> None:
        if not callable(op):
            raise ValueError(f"op has to be a function from image to image, not {op!r}")
        super().__init__()
        self.op = op

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return self.op(img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> NoOpTransform:
        return NoOpTransform()


class PILColorTransform(ColorTransform):
    """A change of colour by a function from Pillow image to Pillow image."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return np.asarray(self.op(Image.fromarray(img)))
