"""Drawing annotations and predictions on images."""

import colorsys
from collections.abc import Sequence
from enum import Enum, unique
from functools import cached_property
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from matplotlib import colors as mpl_colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from detectron2._subset import NeedsRealDetectron2, leave_out
from detectron2.data.catalog import Metadata
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from detectron2.utils.colormap import random_color

__all__ = ["ColorMode", "VisImage", "Visualizer"]

Color = Any  # whatever matplotlib takes: name, "#rrggbb", (r, g, b) in [0, 1]
RGB = tuple[float, float, float]

_SMALL_OBJECT_AREA = 1000  # pixels: its label goes beside it
_SMALL_OBJECT_HEIGHT = 40
_LARGE_MASK_AREA = 120_000  # pixels: a mask part that gets a label of its own


@unique
class ColorMode(Enum):
    """How instances are coloured."""

    IMAGE = 0
    """A random colour for every instance, laid thinly over the image."""
    SEGMENTATION = 1
    """Instances of a class in shades of the class's colour, laid thickly over the image."""
    IMAGE_BW = 2
    """Like IMAGE, with everything outside the predicted masks in grey."""


class GenericMask:
    """One mask, given as COCO RLE, list of polygons or array; converted when needed.

    Attributes:
        height: of the image.
        width: of the image.
    """

    def __init__(self, mask_or_polygons: Any, height: int, width: int) -> None:
        """Keep a mask (H, W), an RLE dict, or polygons [[x0, y0, x1, y1, ...], ...]."""
        self.height = height
        self.width = width
        self._given_polygons: list[np.ndarray] | None = None
        if isinstance(mask_or_polygons, dict):
            rle = mask_or_polygons
            if isinstance(rle["counts"], list):
                assert tuple(rle["size"]) == (height, width), rle["size"]
                rle = mask_util.frPyObjects(rle, height, width)
            self.mask = mask_util.decode(rle)
        elif isinstance(mask_or_polygons, list):
            self._given_polygons = [np.asarray(part).reshape(-1) for part in mask_or_polygons]
        elif isinstance(mask_or_polygons, np.ndarray):
            assert mask_or_polygons.shape == (height, width), (
                f"The mask has shape {mask_or_polygons.shape}, the image ({height}, {width})."
            )
            self.mask = mask_or_polygons.astype(np.uint8)
        else:
            raise ValueError(f"Cannot draw a mask of type {type(mask_or_polygons).__name__}.")

    @cached_property
    def mask(self) -> np.ndarray:
        """The mask (H, W), uint8."""
        return mask_util.decode(self._merged_polygons())

    @property
    def polygons(self) -> list[np.ndarray]:
        """Outlines [x0, y0, x1, y1, ...], those of holes too."""
        return self._given_polygons if self._given_polygons is not None else self._outlines[0]

    @property
    def has_holes(self) -> bool:
        """Whether the mask has holes; polygons never do."""
        return self._given_polygons is None and self._outlines[1]

    @cached_property
    def _outlines(self) -> tuple[list[np.ndarray], bool]:
        import cv2

        mask = np.ascontiguousarray(self.mask)
        *_, contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        if hierarchy is None:
            return [], False
        # OpenCV gives pixel indices; + 0.5 are the pixels' centres.
        outlines = [contour.flatten() + 0.5 for contour in contours if len(contour) >= 3]
        parents = hierarchy.reshape(-1, 4)[:, 3]
        return outlines, bool((parents >= 0).any())

    def _merged_polygons(self) -> dict[str, Any]:
        return mask_util.merge(mask_util.frPyObjects(self.polygons, self.height, self.width))

    def area(self) -> int:
        """Number of pixels."""
        return int(self.mask.sum())

    def bbox(self) -> np.ndarray:
        """Box around the outlines, xyxy."""
        box = mask_util.toBbox(self._merged_polygons())
        box[2:] += box[:2]
        return box


class VisImage:
    """A matplotlib figure of exactly one image, to draw on."""

    def __init__(self, img: np.ndarray, scale: float = 1.0) -> None:
        """Show an RGB image (H, W, 3) in [0, 255], `scale` times as large."""
        self.img = img
        self.scale = scale
        self.height, self.width = img.shape[:2]
        self.fig = Figure(frameon=False)
        self.dpi = self.fig.get_dpi()
        # Matplotlib cuts off fractions of pixels, also those of rounding: add a hundredth.
        self.fig.set_size_inches(
            (self.width * scale + 1e-2) / self.dpi, (self.height * scale + 1e-2) / self.dpi
        )
        self.canvas = FigureCanvasAgg(self.fig)
        self.ax = self.fig.add_axes((0.0, 0.0, 1.0, 1.0))
        self.ax.axis("off")
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Draw another image (H, W, 3) over everything."""
        self.show(img.astype(np.uint8), interpolation="nearest")

    def show(self, img: np.ndarray, **kwargs: Any) -> None:
        """Draw an image of any channels over the whole figure."""
        self.ax.imshow(img, extent=(0, self.width, self.height, 0), **kwargs)

    def save(self, filepath: str) -> None:
        """Write the picture to a file."""
        self.fig.savefig(filepath)

    def get_image(self) -> np.ndarray:
        """Return the picture (scale * H, scale * W, 3), RGB, uint8."""
        buffer, (width, height) = self.canvas.print_to_buffer()
        rgba = np.frombuffer(buffer, dtype=np.uint8).reshape(height, width, 4)
        return rgba[:, :, :3].copy()


def _create_text_labels(
    classes: Sequence[int] | None,
    scores: Any | None,
    class_names: Sequence[str] | None,
    is_crowd: Sequence[int] | None = None,
) -> list[str] | None:
    """Return labels such as "cat 93%" or "cat|crowd", or None without classes and scores."""
    if classes is None and scores is None:
        return None
    count = len(classes) if classes is not None else len(scores)
    labels = [""] * count
    if classes is not None:
        labels = [class_names[index] if class_names else str(index) for index in classes]
    if scores is not None:
        labels = [f"{label} {100 * score:.0f}%".strip() for label, score in zip(labels, scores)]
    if is_crowd is not None:
        labels = [label + ("|crowd" if crowd else "") for label, crowd in zip(labels, is_crowd)]
    return labels


class Visualizer:
    """Draws on one image; every `draw_*` returns the `VisImage`.

    Attributes:
        img: the image (H, W, 3), RGB, uint8.
        metadata: names and colours of the classes.
        output: what has been drawn.
    """

    def __init__(
        self,
        img_rgb: Any,
        metadata: Metadata | None = None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
        font_size_scale: float = 1.0,
    ) -> None:
        """Prepare an image.

        Args:
            img_rgb: image (H, W, 3), RGB, in [0, 255].
            metadata: may have `thing_classes` and `thing_colors`.
            scale: size of the picture relative to the image.
            instance_mode: how instances are coloured.
            font_size_scale: size of the text relative to the usual one.
        """
        self.img = np.asarray(img_rgb).clip(0, 255).astype(np.uint8)
        self.metadata = Metadata() if metadata is None else metadata
        self.output = VisImage(self.img, scale=scale)
        self._default_font_size = font_size_scale * max(self._image_side() // 90, 10 // scale)
        self._instance_mode = instance_mode

    def get_output(self) -> VisImage:
        """What has been drawn."""
        return self.output

    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Draw a model's predictions on this image.

        Args:
            predictions: any of `pred_boxes`, `pred_classes`, `scores`, `pred_masks`, on the CPU.
            jittering: whether colours of instances differ within a class (SEGMENTATION mode).
        """
        fields = predictions.get_fields()
        if "pred_keypoints" in fields:
            raise NeedsRealDetectron2("Drawing keypoints")
        masks = fields.get("pred_masks")
        classes = fields["pred_classes"].tolist() if "pred_classes" in fields else None
        labels = _create_text_labels(classes, fields.get("scores"), self._class_names())
        colors = self._class_colors(classes, jittering)
        alpha = 0.5 if colors is None else 0.8
        if self._instance_mode == ColorMode.IMAGE_BW:
            alpha = 0.3
            kept = None if masks is None else np.asarray(masks).any(axis=0)
            self.output.reset_image(self._create_grayscale_image(kept))
        return self.overlay_instances(
            masks=masks,
            boxes=fields.get("pred_boxes"),
            labels=labels,
            assigned_colors=colors,
            alpha=alpha,
        )

    def draw_dataset_dict(self, dic: dict[str, Any]) -> VisImage:
        """Draw the annotations of one image of a data set (boxes, masks, class names)."""
        outside = {"sem_seg", "sem_seg_file_name", "pan_seg", "pan_seg_file_name"} & dic.keys()
        if outside:
            raise NeedsRealDetectron2(f"Drawing {', '.join(sorted(outside))}")
        annotations = dic.get("annotations")
        if not annotations:
            return self.output
        classes = [annotation["category_id"] for annotation in annotations]
        crowds = [annotation.get("iscrowd", 0) for annotation in annotations]
        masks = None
        if "segmentation" in annotations[0]:
            masks = [annotation["segmentation"] for annotation in annotations]
        return self.overlay_instances(
            boxes=[
                BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
                for annotation in annotations
            ],
            masks=masks,
            labels=_create_text_labels(classes, None, self._class_names(), crowds),
            assigned_colors=self._class_colors(classes),
        )

    def overlay_instances(
        self,
        *,
        boxes: Any | None = None,
        labels: Sequence[str] | None = None,
        masks: Any | None = None,
        keypoints: None = None,
        assigned_colors: Sequence[Color] | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw instances, the largest first.

        Args:
            boxes: `Boxes` or an array (N, 4), xyxy.
            labels: N texts.
            masks: `PolygonMasks`, `BitMasks`, a tensor (N, H, W), or a list of what `GenericMask`
                takes.
            keypoints: not in the subset.
            assigned_colors: N colours; random ones unless given.
            alpha: opacity of the masks.
        """
        if keypoints is not None:
            raise NeedsRealDetectron2("Drawing keypoints")
        box_array = None if boxes is None else self._convert_boxes(boxes)
        mask_list = None if masks is None else self._convert_masks(masks)
        given = box_array if box_array is not None and len(box_array) else mask_list
        count = 0 if given is None else len(given)
        for what in (mask_list, labels):
            assert what is None or len(what) == count, (
                f"{len(what)} of something, {count} instances"
            )
        if assigned_colors is None:
            assigned_colors = [random_color(rgb=True, maximum=1) for _ in range(count)]
        if count == 0:
            return self.output

        areas = (
            np.prod(box_array[:, 2:] - box_array[:, :2], axis=1)
            if box_array is not None
            else np.array([mask.area() for mask in mask_list])
        )
        for index in np.argsort(-areas).tolist():
            self._draw_instance(
                box=None if box_array is None else box_array[index],
                mask=None if mask_list is None else mask_list[index],
                label=None if labels is None else labels[index],
                color=assigned_colors[index],
                alpha=alpha,
            )
        return self.output

    def _draw_instance(
        self,
        box: np.ndarray | None,
        mask: GenericMask | None,
        label: str | None,
        color: Color,
        alpha: float,
    ) -> None:
        if box is not None:
            self.draw_box(box, edge_color=color)
        if mask is not None:
            for outline in mask.polygons:
                self.draw_polygon(outline.reshape(-1, 2), color, alpha=alpha)
        if label is None:
            return
        if box is not None:
            x0, y0, x1, y1 = box
            position, alignment = (x0, y0), "left"
        elif mask is not None and mask.polygons:
            x0, y0, x1, y1 = mask.bbox()
            row, column = np.median(mask.mask.nonzero(), axis=1)
            position, alignment = (column, row), "center"
        else:
            return
        scale, height = self.output.scale, y1 - y0
        is_small = height * (x1 - x0) < _SMALL_OBJECT_AREA * scale
        if is_small or height < _SMALL_OBJECT_HEIGHT * scale:
            position = (x1, y0) if y1 >= self.output.height - 5 else (x0, y1)
        growth = np.clip((height / self._image_side() - 0.02) / 0.08 + 1, 1.2, 2)
        self.draw_text(
            label,
            position,
            color=self._change_color_brightness(color, 0.7),
            horizontal_alignment=alignment,
            font_size=growth * 0.5 * self._default_font_size,
        )

    def draw_text(
        self,
        text: str,
        position: Sequence[float],
        *,
        font_size: float | None = None,
        color: Color = "g",
        horizontal_alignment: str = "center",
        rotation: float = 0,
    ) -> VisImage:
        """Write text on a dark ground; its top is at `position` (x, y)."""
        bright = np.maximum(mpl_colors.to_rgb(color), 0.2)
        bright[bright.argmax()] = max(0.8, bright.max())
        self.output.ax.text(
            *position,
            text,
            size=(font_size or self._default_font_size) * self.output.scale,
            family="sans-serif",
            bbox={"facecolor": "black", "alpha": 0.75, "pad": 1, "linewidth": 0},
            verticalalignment="top",
            horizontalalignment=horizontal_alignment,
            color=bright,
            zorder=10,
            rotation=rotation,
        )
        return self.output

    def draw_box(
        self,
        box_coord: Sequence[float],
        alpha: float = 0.5,
        edge_color: Color = "g",
        line_style: str = "-",
    ) -> VisImage:
        """Draw the outline of a box, xyxy."""
        x0, y0, x1, y1 = box_coord
        self.output.ax.add_patch(
            Rectangle(
                (x0, y0),
                x1 - x0,
                y1 - y0,
                fill=False,
                edgecolor=edge_color,
                linewidth=max(self._default_font_size / 4, 1) * self.output.scale,
                alpha=alpha,
                linestyle=line_style,
            )
        )
        return self.output

    def draw_polygon(
        self,
        segment: np.ndarray,
        color: Color,
        edge_color: Color | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw a filled polygon (N, 2); its edge is darker where the filling is opaque."""
        if edge_color is None:
            edge_color = self._change_color_brightness(color, -0.7) if alpha > 0.8 else color
        self.output.ax.add_patch(
            Polygon(
                segment,
                fill=True,
                facecolor=mpl_colors.to_rgba(color, alpha),
                edgecolor=mpl_colors.to_rgba(edge_color, 1),
                linewidth=max(self._default_font_size // 15 * self.output.scale, 1),
            )
        )
        return self.output

    def draw_binary_mask(
        self,
        binary_mask: np.ndarray,
        color: Color | None = None,
        *,
        edge_color: Color | None = None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: float | None = 10,
    ) -> VisImage:
        """Draw a mask (H, W): as outlined polygons, or as pixels if it has holes.

        Args:
            binary_mask: 0 and 1.
            color: random unless given.
            edge_color: of the outlines; `color` unless given.
            text: written into the largest part of the mask.
            alpha: opacity.
            area_threshold: smaller polygons, in pixels, are not drawn.
        """
        rgb = self._to_rgb(color)
        mask = GenericMask(binary_mask, self.output.height, self.output.width)
        is_drawn = mask.has_holes
        if mask.has_holes:
            self._show_opacity(rgb, mask.mask * alpha)
        else:
            for outline in mask.polygons:
                rle = mask_util.frPyObjects([outline], mask.height, mask.width)
                if mask_util.area(rle)[0] >= (area_threshold or 0):
                    is_drawn = True
                    points = outline.reshape(-1, 2)
                    self.draw_polygon(points, rgb, edge_color=edge_color, alpha=alpha)
        if text is not None and is_drawn:
            self._draw_text_in_mask(mask.mask, text, rgb)
        return self.output

    def draw_soft_mask(
        self,
        soft_mask: np.ndarray,
        color: Color | None = None,
        *,
        text: str | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw a mask (H, W) of values in [0, 1] as opacity; see `draw_binary_mask`."""
        rgb = self._to_rgb(color)
        self._show_opacity(rgb, soft_mask * alpha)
        if text is not None:
            self._draw_text_in_mask((soft_mask > 0.5).astype(np.uint8), text, rgb)
        return self.output

    def _show_opacity(self, rgb: RGB, opacity: np.ndarray) -> None:
        rgba = np.empty((*opacity.shape, 4), dtype=np.float32)
        rgba[..., :3] = rgb
        rgba[..., 3] = opacity
        self.output.show(rgba)

    def _draw_text_in_mask(self, binary_mask: np.ndarray, text: str, rgb: RGB) -> None:
        """Write into the largest connected part, and into all other very large ones."""
        import cv2

        _, parts, stats, _ = cv2.connectedComponentsWithStats(binary_mask, connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]  # the first part is the background
        for index, area in enumerate(areas):
            if area == areas.max() or area > _LARGE_MASK_AREA:
                row, column = np.median((parts == index + 1).nonzero(), axis=1)
                self.draw_text(text, (column, row), color=self._change_color_brightness(rgb, 0.7))

    def _image_side(self) -> float:
        return float(np.sqrt(self.output.height * self.output.width))

    def _class_names(self) -> Sequence[str] | None:
        return self.metadata.get("thing_classes", None)

    def _class_colors(
        self, classes: Sequence[int] | None, jittering: bool = True
    ) -> list[RGB] | None:
        """Colours by class in SEGMENTATION mode, if the data set has any."""
        palette = self.metadata.get("thing_colors", None)
        if self._instance_mode != ColorMode.SEGMENTATION or not palette or classes is None:
            return None
        colors = [self._to_rgb([value / 255 for value in palette[index]]) for index in classes]
        return [self._jitter(color) for color in colors] if jittering else colors

    @staticmethod
    def _to_rgb(color: Color | None) -> RGB:
        return mpl_colors.to_rgb(random_color(rgb=True, maximum=1) if color is None else color)

    @staticmethod
    def _jitter(color: Color) -> RGB:
        """Add a random step of length 0.5 towards white."""
        step = np.random.rand(3)
        step *= 0.5 / np.linalg.norm(step)
        return mpl_colors.to_rgb(np.clip(mpl_colors.to_rgb(color) + step, 0, 1))

    @staticmethod
    def _change_color_brightness(color: Color, brightness_factor: float) -> RGB:
        """Change the lightness by a factor in [-1, 1] of itself."""
        assert -1 <= brightness_factor <= 1, brightness_factor
        hue, lightness, saturation = colorsys.rgb_to_hls(*mpl_colors.to_rgb(color))
        lightness = min(max(lightness * (1 + brightness_factor), 0.0), 1.0)
        return colorsys.hls_to_rgb(hue, lightness, saturation)

    def _create_grayscale_image(self, mask: np.ndarray | None = None) -> np.ndarray:
        """The image (H, W, 3) in grey, in colour inside the mask (H, W)."""
        gray = np.repeat(self.img.mean(axis=2, keepdims=True), 3, axis=2)
        return gray if mask is None else np.where(mask[..., None], self.img, gray)

    @staticmethod
    def _convert_boxes(boxes: Any) -> np.ndarray:
        tensor = boxes.tensor if isinstance(boxes, Boxes) else boxes
        return np.asarray(tensor.detach() if isinstance(tensor, torch.Tensor) else tensor)

    def _convert_masks(self, masks: Any) -> list[GenericMask]:
        if isinstance(masks, PolygonMasks):
            masks = masks.polygons
        elif isinstance(masks, BitMasks):
            masks = masks.tensor
        if isinstance(masks, torch.Tensor):
            masks = masks.numpy()
        size = (self.output.height, self.output.width)
        return [m if isinstance(m, GenericMask) else GenericMask(m, *size) for m in masks]


leave_out(
    Visualizer,
    "draw_and_connect_keypoints draw_circle draw_line draw_panoptic_seg "
    "draw_panoptic_seg_predictions draw_rotated_box_with_label draw_sem_seg "
    "overlay_rotated_instances",
)
