"""Anti-aliased polygon filling in integer arithmetic: the same pixels on every machine.

Coordinates are fixed point, 1/256 of a pixel. A pixel's coverage is exact along x and sampled by
four scan lines along y.
"""

import numpy as np

from queryseg.data.shapes.outlines import Outline

UNIT = 256  # fixed-point steps in a pixel
SCANLINES = 4  # per pixel row
FULL = UNIT * SCANLINES  # coverage of a pixel that lies inside


def to_fixed_point(outline: Outline, centre: tuple[float, float], radius: float) -> Outline:
    """Scale an outline of the unit circle to pixels and round it to the fixed-point grid.

    Args:
        outline: rings (V, 2) as (x, y).
        centre: (x, y) in pixels.
        radius: pixels that a unit becomes.

    Returns:
        rings (V, 2), int64, in 1/256 pixel.
    """
    return [np.rint((ring * radius + centre) * UNIT).astype(np.int64) for ring in outline]


def signed_area(rings: Outline) -> float:
    """Area in square pixels inside the rings (holes subtract), by the shoelace formula."""
    doubled = 0
    for ring in rings:
        following = np.roll(ring, -1, axis=0)
        doubled += int((ring[:, 0] * following[:, 1] - ring[:, 1] * following[:, 0]).sum())
    return doubled / (2 * UNIT * UNIT)


def coverage(rings: Outline, height: int, width: int) -> np.ndarray:
    """How much of each pixel lies inside the polygon.

    Args:
        rings: int64 (V, 2) in 1/256 pixel, as of `to_fixed_point`.
        height: of the frame, in pixels. Parts outside the frame are clipped.
        width: of the frame, in pixels.

    Returns:
        (height, width) int64 from 0 to `FULL`.
    """
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    step = UNIT // SCANLINES
    lines = np.arange(height * SCANLINES, dtype=np.int64) * step + step // 2
    crosses = (start[:, 1, None] <= lines) != (end[:, 1, None] <= lines)
    edge, line = np.nonzero(crosses)

    dx, dy = (end - start)[edge].T
    x = start[edge, 0] + (lines[line] - start[edge, 1]) * dx // dy
    x = np.clip(x, 0, width * UNIT)
    direction = np.sign(dy)
    column, fraction = np.divmod(x, UNIT)

    # Differences along x: right of a crossing everything is inside by one more (or one less).
    change = np.zeros((height, width + 2), dtype=np.int64)
    np.add.at(change, (line // SCANLINES, column), direction * (UNIT - fraction))
    np.add.at(change, (line // SCANLINES, column + 1), direction * fraction)
    return np.abs(np.cumsum(change, axis=1)[:, :width])
