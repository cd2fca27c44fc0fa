"""Where the queries of FastInst were picked, and what they became (Figure 3 of the paper)."""

import cv2
import numpy as np

from queryseg.predictor import Predictor
from queryseg.visualization.drawings import Drawn
from queryseg.visualization.errors import PictureError
from queryseg.visualization.grid import make_grid
from queryseg.visualization.objects import DrawnObjects
from queryseg.visualization.painter import paint
from queryseg.visualization.palette import RGB, class_colour

UNUSED: RGB = (235, 235, 235)
EDGE: RGB = (20, 20, 20)
PANEL_PX = 640
DOT_SHARE = 0.009
"""Radius of a dot, as a share of the longer side."""


def draw_queries(predictor: Predictor, image_rgb: np.ndarray) -> Drawn:
    """All queries beside the instances that some of them became.

    Left: every query as a dot where it was picked; coloured by class if an instance came from it,
    else light. Right: the instances with the dots of their queries.

    Args:
        predictor: holds a FastInst whose queries have a place.
        image_rgb: (H, W, 3) uint8.

    Raises:
        PictureError: the model has no queries with a place.
    """
    outputs: list[dict] = []
    handle = predictor.model.register_forward_hook(lambda _, __, out: outputs.append(out[0]))
    try:
        instances = predictor(np.ascontiguousarray(image_rgb[:, :, ::-1]))
    finally:
        handle.remove()
    if "query_points" not in outputs[0]:
        raise PictureError("this model's queries have no place in the image: nothing to draw")
    points = outputs[0]["query_points"].cpu().numpy()
    used = dict(zip(instances.query_idx.tolist(), instances.pred_classes.tolist()))
    objects = DrawnObjects.from_predictions(instances)
    nothing = DrawnObjects(objects.masks[:0], objects.classes[:0])
    canvases = [paint(image_rgb, drawn, predictor.class_names) for drawn in (nothing, objects)]
    shown = (range(len(points)), sorted(used))
    pictures = []
    for canvas, chosen in zip(canvases, shown):
        scale = np.array(canvas.shape[1::-1]) / image_rgb.shape[1::-1]
        colours = [class_colour(used[index]) if index in used else UNUSED for index in chosen]
        pictures.append(_with_dots(canvas, points[list(chosen)] * scale, colours))
    grid = make_grid(
        [pictures], headings=("queries", "instances and their queries"), tile_px=PANEL_PX
    )
    return Drawn(grid, f"{len(points)} queries, {len(used)} with an instance")


def _with_dots(canvas: np.ndarray, points: np.ndarray, colours: list[RGB]) -> np.ndarray:
    canvas = np.ascontiguousarray(canvas).copy()
    radius = max(3, round(DOT_SHARE * max(canvas.shape[:2])))
    for (x, y), colour in zip(points.round().astype(int).tolist(), colours):
        cv2.circle(canvas, (x, y), radius, EDGE, -1, cv2.LINE_AA)
        cv2.circle(canvas, (x, y), radius - 1, colour, -1, cv2.LINE_AA)
    return canvas


DRAWINGS = {"queries": draw_queries}
