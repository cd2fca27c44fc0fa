"""Colours of backgrounds and objects."""

import colorsys

import numpy as np

HUE_STEP = 60.0  # degrees between two classes of the `colour` difficulty
HUE_JITTER = 18.0
MIN_CONTRAST = 70.0  # Euclidean distance in RGB
_ATTEMPTS = 24


def _hsv(hue_degrees: float, saturation: float, value: float) -> np.ndarray:
    rgb = colorsys.hsv_to_rgb(hue_degrees / 360.0 % 1.0, saturation, value)
    return np.array([round(255 * channel) for channel in rgb], dtype=np.int64)


def background_colour(rng: np.random.RandomState, difficulty: str) -> np.ndarray:
    """A random RGB colour (3,) int64; greyish where the hue is what tells the classes apart."""
    most_saturated = 0.35 if difficulty == "colour" else 1.0
    return _hsv(rng.uniform(0, 360), rng.uniform(0, most_saturated), rng.uniform(0.1, 0.9))


def object_colour(
    rng: np.random.RandomState, class_index: int, difficulty: str, beside: list[np.ndarray]
) -> np.ndarray:
    """An RGB colour (3,) int64 for an object that stands out from the colours in `beside`.

    Draws until the smallest distance reaches `MIN_CONTRAST`; after 24 draws the best one is taken.
    """
    best, best_distance = beside[0], -1.0
    for _ in range(_ATTEMPTS):
        if difficulty == "colour":
            hue = class_index * HUE_STEP + rng.uniform(-HUE_JITTER, HUE_JITTER)
            colour = _hsv(hue, rng.uniform(0.55, 1.0), rng.uniform(0.45, 1.0))
        else:
            colour = _hsv(rng.uniform(0, 360), rng.uniform(0, 1), rng.uniform(0.05, 1.0))
        distance = min(float(np.sqrt(((colour - other) ** 2).sum())) for other in beside)
        if distance > best_distance:
            best, best_distance = colour, distance
        if distance >= MIN_CONTRAST:
            break
    return best
