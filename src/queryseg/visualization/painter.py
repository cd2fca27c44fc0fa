"""Paints masks and labels on an image.

Detectron2's `Visualizer` takes a new random colour for every object and fills the holes of masks.
This painter keeps one colour per class (per object in videos), leaves holes open, draws
smooth edges on enlarged images and is fast enough for video.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import cv2
import numpy as np
from PIL import Image, ImageDraw

from queryseg.visualization.font import load_font
from queryseg.visualization.objects import DrawnObjects
from queryseg.visualization.palette import RGB, class_colour, text_colour

Box = tuple[int, int, int, int]  # x0, y0, x1, y1
_AREA_OF_PART = itemgetter(cv2.CC_STAT_AREA)


@dataclass(frozen=True)
class PaintStyle:
    """How strong and how large things are drawn.

    Attributes:
        opacity: of the fill of a mask.
        min_long_side: smaller images are enlarged to this, in pixels; 0 keeps every size.
        font_share: text height, as a share of the geometric mean of the image's sides.
        min_font_px: smallest text height, in pixels.
    """

    opacity: float = 0.42
    min_long_side: int = 640
    font_share: float = 0.030
    min_font_px: int = 11


def paint(
    image_rgb: np.ndarray,
    objects: DrawnObjects,
    class_names: Sequence[str] | None = None,
    style: PaintStyle | None = None,
) -> np.ndarray:
    """Draw objects on an image: filled masks with an outline, a label with class and score.

    Args:
        image_rgb: (H, W, 3) uint8.
        objects: of this image.
        class_names: by class index; without them the index is shown.
        style: see `PaintStyle`.

    Returns:
        (H', W', 3) uint8, enlarged if the style asks for it.
    """
    style = style or PaintStyle()
    canvas = _enlarged(image_rgb, style.min_long_side)
    size = canvas.shape[1], canvas.shape[0]
    line_width = max(1, round(0.0032 * np.sqrt(size[0] * size[1])))
    boxes: dict[int, Box] = {}
    for index in _large_to_small(objects.masks):
        if patch := _enlarged_mask(objects.masks[index], size):
            colour = object_colour(objects, index)
            boxes[index] = _paint_mask(canvas, patch, colour, style.opacity, line_width)
    return _paint_labels(canvas, objects, boxes, class_names, style)


def class_name(class_index: int, class_names: Sequence[str] | None) -> str:
    """The name of a class, or "class 7" where it has none."""
    if class_names and class_index < len(class_names):
        return class_names[class_index]
    return f"class {class_index}"


def object_colour(objects: DrawnObjects, index: int) -> RGB:
    """The colour of one object: that of its class, in a video one of its own."""
    numbers = objects.classes if objects.track_ids is None else objects.track_ids
    return class_colour(int(numbers[index]))


def label_text(objects: DrawnObjects, index: int, class_names: Sequence[str] | None) -> str:
    """Class, number in its video and score of one object: "gear 98 %", "gear #3 98 %"."""
    name = class_name(int(objects.classes[index]), class_names)
    if objects.track_ids is not None:
        name = f"{name} #{int(objects.track_ids[index])}"
    return name if objects.scores is None else f"{name} {100 * float(objects.scores[index]):.0f} %"


def _enlarged(image_rgb: np.ndarray, min_long_side: int) -> np.ndarray:
    height, width = image_rgb.shape[:2]
    scale = min_long_side / max(height, width)
    if scale <= 1:
        return np.ascontiguousarray(image_rgb).copy()
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(np.ascontiguousarray(image_rgb), size, interpolation=cv2.INTER_CUBIC)


def _large_to_small(masks: np.ndarray) -> list[int]:
    areas = masks.sum(axis=(1, 2))
    return [int(index) for index in np.argsort(-areas, kind="stable")]


@dataclass(frozen=True)
class _Patch:
    """The part of the canvas where a mask is: its corner, and the mask there in [0, 255]."""

    left: int
    top: int
    soft: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        return self.soft > 127


def _enlarged_mask(mask: np.ndarray, size: tuple[int, int]) -> _Patch | None:
    """A mask on a canvas of (width, height), with smooth edges if that is larger; None if empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    scale = np.array(size) / mask.shape[::-1]
    first = np.maximum(np.floor((np.array([columns[0], rows[0]]) - 1) * scale), 0).astype(int)
    last = np.minimum(np.ceil((np.array([columns[-1], rows[-1]]) + 2) * scale), size).astype(int)
    # Pixel centres lie at + 0.5 on both grids.
    offset = (first + 0.5) / scale - 0.5
    to_mask = np.array([[1 / scale[0], 0, offset[0]], [0, 1 / scale[1], offset[1]]])
    soft = cv2.warpAffine(
        mask.astype(np.uint8) * 255,
        to_mask,
        (int(last[0] - first[0]), int(last[1] - first[1])),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    blur = 2 * round(0.35 * (scale[0] - 1)) + 1
    return _Patch(int(first[0]), int(first[1]), cv2.GaussianBlur(soft, (blur, blur), 0))


def _paint_mask(
    canvas: np.ndarray, patch: _Patch, colour: RGB, opacity: float, line_width: int
) -> Box:
    """Fill and outline a mask; returns the box of its largest part."""
    height, width = patch.soft.shape
    region = canvas[patch.top : patch.top + height, patch.left : patch.left + width]
    tinted = region + opacity * (np.array(colour, dtype=np.float32) - region)
    region[:] = np.where(patch.inside[:, :, None], tinted, region).astype(np.uint8)
    binary, corner = patch.inside.astype(np.uint8), (patch.left, patch.top)
    contours, _ = cv2.findContours(binary, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=corner)
    cv2.drawContours(canvas, contours, -1, _darker(colour), 2 * line_width, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, colour, line_width, cv2.LINE_AA)
    _, _, parts, _ = cv2.connectedComponentsWithStats(binary)
    x, y, box_width, box_height, _ = max(parts[1:].tolist() or [[0] * 5], key=_AREA_OF_PART)
    return patch.left + x, patch.top + y, patch.left + x + box_width, patch.top + y + box_height


def _darker(colour: RGB) -> RGB:
    red, green, blue = (channel // 3 for channel in colour)
    return red, green, blue


def _paint_labels(
    canvas: np.ndarray,
    objects: DrawnObjects,
    boxes: dict[int, Box],
    class_names: Sequence[str] | None,
    style: PaintStyle,
) -> np.ndarray:
    height, width = canvas.shape[:2]
    font_px = max(style.min_font_px, round(style.font_share * np.sqrt(height * width)))
    font, pad = load_font(font_px), max(2, font_px // 4)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    taken: list[Box] = []
    for index, box in boxes.items():
        text = label_text(objects, index, class_names)
        label_size = round(draw.textlength(text, font)) + 2 * pad, font_px + 2 * pad
        place = _label_place(box, label_size, (width, height), taken)
        taken.append(place)
        colour = object_colour(objects, index)
        draw.rounded_rectangle(place, radius=pad, fill=colour)
        middle = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
        draw.text(middle, text, font=font, fill=text_colour(colour), anchor="mm")
    return np.asarray(picture)


def _label_place(
    box: Box,
    label_size: tuple[int, int],
    image_size: tuple[int, int],
    taken: list[Box],
) -> Box:
    """Above the object, else inside, below or in its middle: the first place that is free."""
    (x0, y0, x1, y1), (width, height) = box, label_size
    corners = [
        (x0, y0 - height),
        (x1 - width, y0 - height),
        (x0, y0),
        (x0, y1),
        (x1 - width, y1),
        ((x0 + x1 - width) // 2, (y0 + y1 - height) // 2),
    ]
    places = []
    for left, top in corners:
        left = min(max(left, 0), max(image_size[0] - width, 0))
        top = min(max(top, 0), max(image_size[1] - height, 0))
        places.append((left, top, left + width, top + height))
    return min(places, key=lambda place: sum(_overlap(place, other) for other in taken))


def _overlap(a: Box, b: Box) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)
