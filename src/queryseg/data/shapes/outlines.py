"""Outlines of the six shape classes, as closed polygons inside the unit circle."""

import math
from collections.abc import Callable

import numpy as np

Outline = list[np.ndarray]  # closed rings, each (V, 2) float64 as (x, y); a hole runs backwards

DISC_VERTICES = 48
GEAR_TEETH = 8
STAR_POINTS = 5


def _circle(radius: float, vertices: int = DISC_VERTICES) -> np.ndarray:
    angles = [2 * math.pi * k / vertices for k in range(vertices)]
    return np.array([(radius * math.cos(a), radius * math.sin(a)) for a in angles])


def _spokes(radii_and_angles: list[tuple[float, float]]) -> np.ndarray:
    return np.array([(r * math.cos(a), r * math.sin(a)) for r, a in radii_and_angles])


def _disc(rng: np.random.RandomState) -> Outline:
    return [_circle(1.0)]


def _rectangle(rng: np.random.RandomState) -> Outline:
    half_angle = math.atan(rng.uniform(0.22, 0.85))
    corners = (half_angle, math.pi - half_angle, math.pi + half_angle, -half_angle)
    return [_spokes([(1.0, a) for a in corners])]


def _triangle(rng: np.random.RandomState) -> Outline:
    third = 2 * math.pi / 3
    return [_spokes([(1.0, k * third + rng.uniform(-0.2, 0.2)) for k in range(3)])]


def _star(rng: np.random.RandomState) -> Outline:
    waist = rng.uniform(0.36, 0.48)
    step = math.pi / STAR_POINTS
    return [_spokes([(waist if k % 2 else 1.0, k * step) for k in range(2 * STAR_POINTS)])]


def _gear(rng: np.random.RandomState) -> Outline:
    root = rng.uniform(0.66, 0.76)
    step = 2 * math.pi / GEAR_TEETH
    profile = ((root, 0.0), (root, 0.42), (1.0, 0.52), (1.0, 0.90))
    return [_spokes([(r, (k + part) * step) for k in range(GEAR_TEETH) for r, part in profile])]


def _ring(rng: np.random.RandomState) -> Outline:
    return [_circle(1.0), _circle(rng.uniform(0.52, 0.76))[::-1]]


OUTLINES: dict[str, Callable[[np.random.RandomState], Outline]] = {
    "disc": _disc,
    "rectangle": _rectangle,
    "triangle": _triangle,
    "star": _star,
    "gear": _gear,
    "ring": _ring,
}
CLASS_NAMES: tuple[str, ...] = tuple(OUTLINES)


def rotate(outline: Outline, angle: float) -> Outline:
    """The outline turned by `angle` radians about the origin."""
    cos, sin = math.cos(angle), math.sin(angle)
    turned = []
    for ring in outline:
        x, y = ring[:, 0], ring[:, 1]
        turned.append(np.stack([cos * x - sin * y, sin * x + cos * y], axis=1))
    return turned
