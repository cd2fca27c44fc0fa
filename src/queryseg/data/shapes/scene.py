"""One synthetic image: objects placed one over the other, and what is visible of each."""

import math
from dataclasses import dataclass

import numpy as np

from queryseg.data.shapes.colour import background_colour, object_colour
from queryseg.data.shapes.outlines import CLASS_NAMES, OUTLINES, rotate
from queryseg.data.shapes.raster import FULL, coverage, signed_area, to_fixed_point
from queryseg.data.shapes.spec import ShapesSpec
from queryseg.data.shapes.texture import pixel_noise, stripes, value_noise

BACKGROUND_TEXTURE = 12  # largest change of a channel
OBJECT_TEXTURE = 8
NOISE_RANGE = (1.0, 5.0)  # standard deviation
MIN_VISIBLE_FRACTION = 0.25  # of the whole object, parts outside the image included
MIN_VISIBLE_AREA = 40.0  # pixels at the reference size
_PLACEMENT_ATTEMPTS = 8


@dataclass
class Placed:
    """An object in the image, with what later objects leave of it."""

    class_index: int
    centre: tuple[float, float]
    radius: float
    area: float
    coverage: np.ndarray
    visible: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class Scene:
    """An image with its ground truth.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        masks: bool (N, H, W), the visible part of each object; no pixel belongs to two.
        classes: int64 (N,), indices into `CLASS_NAMES`.
    """

    image: np.ndarray
    masks: np.ndarray
    classes: np.ndarray


def render_scene(spec: ShapesSpec, split_index: int, image_index: int) -> Scene:
    """Draw image `image_index` of a split (0 = train, 1 = val).

    Every painted object is annotated: a placement that would leave itself or an earlier object with
    less than a quarter visible (or too few pixels) is drawn anew, and given up after eight times.
    """
    rng = np.random.RandomState([spec.seed, split_index, image_index])
    background = background_colour(rng, spec.difficulty)
    canvas = textured(rng, spec, background, BACKGROUND_TEXTURE)
    placed: list[Placed] = []
    for _ in range(rng.randint(spec.min_objects, spec.max_objects + 1)):
        thing = _place(rng, spec, placed, background)
        if thing is not None:
            canvas = _paint(rng, spec, canvas, thing)
            placed.append(thing)
    canvas = canvas + pixel_noise(rng, spec.height, spec.width, rng.uniform(*NOISE_RANGE))
    masks = [thing.visible for thing in placed]
    return Scene(
        image=np.clip(canvas, 0, 255).astype(np.uint8),
        masks=np.array(masks, dtype=bool).reshape(-1, spec.height, spec.width),
        classes=np.array([thing.class_index for thing in placed], dtype=np.int64),
    )


def textured(
    rng: np.random.RandomState, spec: ShapesSpec, colour: np.ndarray, amplitude: int
) -> np.ndarray:
    """A full frame of one colour under noise or stripes: (H, W, 3) int64."""
    cell = max(2, round(rng.randint(5, 20) * spec.scale))
    if rng.random_sample() < 0.25:
        texture = stripes(rng, spec.height, spec.width, cell, amplitude // 2)
    else:
        texture = value_noise(rng, spec.height, spec.width, cell, amplitude)
    return texture[:, :, None] + colour


def _place(
    rng: np.random.RandomState, spec: ShapesSpec, placed: list[Placed], background: np.ndarray
) -> Placed | None:
    for _ in range(_PLACEMENT_ATTEMPTS):
        thing = _draw_object(rng, spec)
        left_over = [other.visible & ~thing.visible for other in placed]
        masks = [*left_over, thing.visible]
        if all(_shows_enough(m, o.area, spec) for m, o in zip(masks, [*placed, thing])):
            for other, visible in zip(placed, left_over):
                other.visible = visible
            beside = [background] + [o.colour for o in placed if _may_touch(o, thing)]
            thing.colour = object_colour(rng, thing.class_index, spec.difficulty, beside)
            return thing
    return None


def _draw_object(rng: np.random.RandomState, spec: ShapesSpec) -> Placed:
    classes = spec.classes or CLASS_NAMES
    class_index = CLASS_NAMES.index(classes[rng.randint(len(classes))])
    ratio = spec.max_radius / spec.min_radius
    radius = spec.min_radius * ratio ** rng.random_sample() * spec.scale
    margin = 0.6 * radius
    centre = (
        rng.uniform(margin, max(margin, spec.width - margin)),
        rng.uniform(margin, max(margin, spec.height - margin)),
    )
    outline = rotate(OUTLINES[CLASS_NAMES[class_index]](rng), rng.uniform(0, 2 * math.pi))
    rings = to_fixed_point(outline, centre, radius)
    covered = coverage(rings, spec.height, spec.width)
    return Placed(
        class_index=class_index,
        centre=centre,
        radius=radius,
        area=signed_area(rings),
        coverage=covered,
        visible=2 * covered >= FULL,
        colour=np.zeros(3, dtype=np.int64),
    )


def _shows_enough(visible: np.ndarray, area: float, spec: ShapesSpec) -> bool:
    least = max(MIN_VISIBLE_FRACTION * area, MIN_VISIBLE_AREA * spec.scale**2)
    return int(visible.sum()) >= least


def _may_touch(one: Placed, other: Placed) -> bool:
    dx, dy = one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]
    return dx * dx + dy * dy <= (one.radius + other.radius + 2) ** 2


def _paint(
    rng: np.random.RandomState, spec: ShapesSpec, canvas: np.ndarray, thing: Placed
) -> np.ndarray:
    surface = textured(rng, spec, thing.colour, int(rng.randint(OBJECT_TEXTURE + 1)))
    alpha = thing.coverage[:, :, None]
    return (surface * alpha + canvas * (FULL - alpha) + FULL // 2) // FULL
