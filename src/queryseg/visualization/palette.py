"""One colour per class, the same in every picture."""

import math

import numpy as np

RGB = tuple[int, int, int]

# Hues this far apart never come close to each other, however many are taken (golden angle).
_HUE_STEP = math.pi * (3 - math.sqrt(5))
_FIRST_HUE = 0.45
# Lightness and chroma in OKLCH; every second class is lighter, so that neighbouring hues differ.
_TONES = ((0.66, 0.17), (0.76, 0.15), (0.58, 0.16))


def class_colour(class_index: int) -> RGB:
    """The colour of a class, as 8-bit sRGB.

    >>> class_colour(0) == class_colour(0), class_colour(0) == class_colour(1)
    (True, False)
    """
    lightness, chroma = _TONES[class_index % len(_TONES)]
    hue = _FIRST_HUE + _HUE_STEP * class_index
    return _oklab_to_rgb(lightness, chroma * math.cos(hue), chroma * math.sin(hue))


def text_colour(background: RGB) -> RGB:
    """Black or white, whichever is easier to read on a colour."""
    red, green, blue = (_to_linear(channel / 255) for channel in background)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    # Equal contrast to black and to white, by WCAG's formula, lies at sqrt(1.05 * 0.05) - 0.05.
    return (0, 0, 0) if luminance > math.sqrt(1.05 * 0.05) - 0.05 else (255, 255, 255)


def _to_linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _oklab_to_rgb(lightness: float, a: float, b: float) -> RGB:
    """Ottosson's OKLab to sRGB, clipped to the gamut."""
    to_lms = np.array(
        [[1, 0.3963378, 0.2158038], [1, -0.1055613, -0.0638542], [1, -0.0894842, -1.2914855]]
    )
    to_linear_rgb = np.array(
        [
            [4.0767417, -3.3077116, 0.2309699],
            [-1.2684380, 2.6097574, -0.3413194],
            [-0.0041961, -0.7034186, 1.7076147],
        ]
    )
    linear = np.clip(to_linear_rgb @ (to_lms @ np.array([lightness, a, b])) ** 3, 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(255 * float(channel)) for channel in gamma)
    return red, green, blue
