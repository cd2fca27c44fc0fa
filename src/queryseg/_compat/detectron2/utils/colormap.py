"""Colours that are easy to tell apart."""

import colorsys
import random

import numpy as np

__all__ = ["colormap", "random_color", "random_colors"]

_NUM_COLORS = 74  # as many as in the real package, whose random draws these functions repeat
_GOLDEN_ANGLE = 0.381966


def _palette() -> np.ndarray:
    """RGB colours (74, 3), float32 in [0, 1]: hues a golden angle apart, in three tones."""
    tones = ((0.85, 0.85), (0.65, 1.0), (1.0, 0.65))  # saturation, value
    colors = [
        colorsys.hsv_to_rgb(index * _GOLDEN_ANGLE % 1, *tones[index % len(tones)])
        for index in range(_NUM_COLORS)
    ]
    return np.array(colors, dtype=np.float32)


_COLORS = _palette()


def colormap(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """Return all colours (N, 3) as float32 up to `maximum` (255 or 1), RGB or BGR."""
    assert maximum in (1, 255), f"maximum has to be 1 or 255, got {maximum}."
    colors = _COLORS * maximum
    return colors if rgb else colors[:, ::-1]


def random_color(rgb: bool = False, maximum: int = 255) -> np.ndarray:
    """Return one colour (3,), drawn from NumPy's generator."""
    return colormap(rgb, maximum)[np.random.randint(0, _NUM_COLORS)]


def random_colors(N: int, rgb: bool = False, maximum: int = 255) -> list[np.ndarray]:
    """Return `N` different colours (3,), drawn from Python's generator."""
    colors = colormap(rgb, maximum)
    return [colors[index] for index in random.sample(range(_NUM_COLORS), N)]
