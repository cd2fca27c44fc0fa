"""One synthetic video: objects on their paths, painted one over the other in every frame."""

from dataclasses import dataclass

import numpy as np

from queryseg.data.moving_shapes.motion import Path, crossing, wandering
from queryseg.data.moving_shapes.spec import MovingShapesSpec
from queryseg.data.shapes.colour import background_colour, object_colour
from queryseg.data.shapes.outlines import CLASS_NAMES, OUTLINES, Outline, rotate
from queryseg.data.shapes.raster import FULL, coverage, signed_area, to_fixed_point
from queryseg.data.shapes.scene import (
    BACKGROUND_TEXTURE,
    NOISE_RANGE,
    OBJECT_TEXTURE,
    textured,
)
from queryseg.data.shapes.texture import pixel_noise

MIN_VISIBLE_FRACTION = 0.2  # of an object; with less in sight it has no mask in a frame
MIN_VISIBLE_AREA = 40.0  # pixels at the reference size


@dataclass(frozen=True)
class Actor:
    """An object of a video. Later actors cover earlier ones.

    Attributes:
        class_index: into `CLASS_NAMES`.
        outline: inside the unit circle.
        radius: circumradius in pixels.
        path: how it moves.
        surface: int64 (H, W, 3), its colours as they are at frame 0.
    """

    class_index: int
    outline: Outline
    radius: float
    path: Path
    surface: np.ndarray


@dataclass(frozen=True)
class Clip:
    """A video with its ground truth.

    Attributes:
        frames: uint8 (T, H, W, 3), RGB.
        masks: bool (T, N, H, W), the visible part of each object; empty where too little is.
        classes: int64 (N,), indices into `CLASS_NAMES`.
    """

    frames: np.ndarray
    masks: np.ndarray
    classes: np.ndarray


def render_clip(spec: MovingShapesSpec, split_index: int, clip_index: int) -> Clip:
    """Draw video `clip_index` of a split (0 = train, 1 = val).

    Two of the objects are of one class and cross; between them only colour, texture and size tell
    who is who.
    """
    rng = np.random.RandomState([spec.seed, split_index, clip_index])
    colour = background_colour(rng, spec.difficulty)
    background = textured(rng, spec, colour, BACKGROUND_TEXTURE)
    actors = _cast(rng, spec, colour)
    deviation = rng.uniform(*NOISE_RANGE)
    drawn = [_draw(rng, spec, background, actors, t, deviation) for t in range(spec.frames)]
    return Clip(
        frames=np.array([frame for frame, _ in drawn]),
        masks=np.array([masks for _, masks in drawn]),
        classes=np.array([actor.class_index for actor in actors], dtype=np.int64),
    )


def _cast(
    rng: np.random.RandomState, spec: MovingShapesSpec, background: np.ndarray
) -> list[Actor]:
    count = rng.randint(spec.min_objects, spec.max_objects + 1)
    names = spec.classes or CLASS_NAMES
    classes = [CLASS_NAMES.index(names[place]) for place in rng.randint(len(names), size=count)]
    classes[1] = classes[0]
    ratio = spec.max_radius / spec.min_radius
    radii = [spec.min_radius * ratio ** rng.random_sample() * spec.scale for _ in range(count)]
    paths = [*crossing(rng, spec, (radii[0], radii[1]), spec.frames)]
    paths += [wandering(rng, spec, radius) for radius in radii[2:]]
    colours = [background]
    for class_index in classes:
        colours.append(object_colour(rng, int(class_index), spec.difficulty, colours))
    actors = [
        Actor(
            class_index=int(class_index),
            outline=OUTLINES[CLASS_NAMES[class_index]](rng),
            radius=radius,
            path=path,
            surface=textured(rng, spec, colour, int(rng.randint(OBJECT_TEXTURE + 1))),
        )
        for class_index, radius, path, colour in zip(classes, radii, paths, colours[1:])
    ]
    # Who is in front is random, of the crossing pair too.
    return [actors[index] for index in rng.permutation(count)]


def _draw(
    rng: np.random.RandomState,
    spec: MovingShapesSpec,
    background: np.ndarray,
    actors: list[Actor],
    frame: int,
    deviation: float,
) -> tuple[np.ndarray, np.ndarray]:
    canvas, areas = background, []
    visible: list[np.ndarray] = []
    for actor in actors:
        rings = to_fixed_point(
            rotate(actor.outline, actor.path.rotation(frame)),
            actor.path.centre(frame),
            actor.radius,
        )
        covered = coverage(rings, spec.height, spec.width)
        alpha = covered[:, :, None]
        surface = _carried_along(actor, frame)
        canvas = (surface * alpha + canvas * (FULL - alpha) + FULL // 2) // FULL
        inside = 2 * covered >= FULL
        visible = [mask & ~inside for mask in visible] + [inside]
        areas.append(signed_area(rings))
    for mask, area in zip(visible, areas):
        mask &= bool(mask.sum() >= _least_visible(area, spec))
    canvas = canvas + pixel_noise(rng, spec.height, spec.width, deviation)
    return np.clip(canvas, 0, 255).astype(np.uint8), np.array(visible)


def _carried_along(actor: Actor, frame: int) -> np.ndarray:
    """The surface, moved by as many whole pixels as the object."""
    before, now = actor.path.centre(0), actor.path.centre(frame)
    shift = [round(b - a) for a, b in zip(before, now)]
    return np.roll(actor.surface, shift[::-1], axis=(0, 1))


def _least_visible(area: float, spec: MovingShapesSpec) -> float:
    return max(MIN_VISIBLE_FRACTION * area, MIN_VISIBLE_AREA * spec.scale**2)
