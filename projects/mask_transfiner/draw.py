"""The incoherent regions of the predicted masks and the quadtree over them (Figure 14)."""

from typing import Any

import cv2
import numpy as np
from torch import Tensor

from queryseg.mask_refinement.mask_head import QuadtreeMaskHead, QuadtreeMasks
from queryseg.mask_refinement.rois import RoIs
from queryseg.predictor import Predictor
from queryseg.visualization.drawings import Drawn
from queryseg.visualization.errors import PictureError
from queryseg.visualization.grid import make_grid
from queryseg.visualization.objects import DrawnObjects
from queryseg.visualization.painter import paint
from queryseg.visualization.palette import RGB

PANEL_PX = 640
LEVEL_COLOURS: tuple[RGB, ...] = ((250, 214, 60), (240, 120, 40), (210, 30, 60), (120, 20, 120))
"""Of the cells of each level, coarse to fine."""


def draw_quadtree(predictor: Predictor, image_rgb: np.ndarray) -> Drawn:
    """The cells of the tree over the image, and the refined masks beside it.

    Yellow cells are of the root level, orange and red ones of the finer levels.

    Args:
        predictor: holds a model with a `QuadtreeMaskHead`.
        image_rgb: (H, W, 3) uint8.

    Raises:
        PictureError: the model has no such head, or one that does not refine.
    """
    heads = [m for m in predictor.model.modules() if isinstance(m, QuadtreeMaskHead)]
    if not heads or heads[0].refiner is None:
        raise PictureError("this model refines no masks at a quadtree: nothing to draw")
    calls: list[tuple[Tensor, QuadtreeMasks, Tensor]] = []
    head = heads[0]
    handle = head.register_forward_hook(lambda _, inputs, found: calls.append(_look(head, *inputs)))
    try:
        instances = predictor(np.ascontiguousarray(image_rgb[:, :, ::-1]))
    finally:
        handle.remove()
    boxes, masks, scores = calls[0]
    shown = scores >= predictor.score_thresh
    cells = _cells(masks, boxes, shown)
    objects = DrawnObjects.from_predictions(instances)
    nothing = DrawnObjects(objects.masks[:0], objects.classes[:0])
    plain = paint(image_rgb, nothing, predictor.class_names)
    scale = np.array(plain.shape[1::-1]) / _input_size(predictor, image_rgb)
    tree = _with_cells(plain, cells, scale)
    refined = paint(image_rgb, objects, predictor.class_names)
    headings = ("incoherent cells of the quadtree", "refined masks")
    grid = make_grid([[tree, refined]], headings=headings, tile_px=PANEL_PX)
    count = sum(len(level) for level in cells)
    return Drawn(grid, f"{int(shown.sum())} objects, {count} cells refined")


def _look(
    head: QuadtreeMaskHead, features: dict[str, Tensor], instances: list[Any]
) -> tuple[Tensor, QuadtreeMasks, Tensor]:
    """The boxes of the first image, what the head does with them, and their scores."""
    maps = [features[name][:1] for name in head.in_features]
    boxes = instances[0].pred_boxes.tensor
    result = head.segment(maps, RoIs.from_images([boxes]), instances[0].pred_classes)
    scores = instances[0].scores if instances[0].has("scores") else boxes.new_ones(len(boxes))
    return boxes.clone(), result, scores  # an R-CNN scales its boxes to the output, in place


def _cells(masks: QuadtreeMasks, boxes: Tensor, shown: Tensor) -> list[np.ndarray]:
    """Corners (t, 4) of the refined cells of each level, in pixels of the model's input."""
    nodes = masks.nodes
    assert nodes is not None
    levels = []
    for level, size in enumerate(nodes.grid_sizes[1:], start=1):
        chosen = nodes.index[nodes.level == level]
        chosen = chosen[shown[chosen[:, 0]]]
        own = boxes[chosen[:, 0]]
        cell = (own[:, 2:] - own[:, :2]) / size
        corner = own[:, :2] + chosen[:, [2, 1]] * cell
        levels.append(np.concatenate([corner.cpu(), (corner + cell).cpu()], 1))
    return levels


def _input_size(predictor: Predictor, image_rgb: np.ndarray) -> np.ndarray:
    """(width, height) of the image after the model's own resizing."""
    from detectron2.data import transforms as T

    resized = T.AugInput(image_rgb)
    predictor.augmentations(resized)
    return np.array(resized.image.shape[1::-1])


def _with_cells(canvas: np.ndarray, levels: list[np.ndarray], scale: np.ndarray) -> np.ndarray:
    canvas = np.ascontiguousarray(canvas).copy()
    for corners, colour in zip(levels, LEVEL_COLOURS):
        layer = canvas.copy()
        places = (corners.reshape(-1, 2, 2) * scale).round().astype(int)
        for (x0, y0), (x1, y1) in places.tolist():
            cv2.rectangle(layer, (x0, y0), (x1, y1), colour, -1)
        canvas = cv2.addWeighted(layer, 0.45, canvas, 0.55, 0)
        for (x0, y0), (x1, y1) in places.tolist():
            cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, 1)
    return canvas


DRAWINGS = {"quadtree": draw_quadtree}
