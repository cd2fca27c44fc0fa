"""How synthetic objects move: straight on, turning, and back from the border."""

import math
from dataclasses import dataclass

import numpy as np

from queryseg.data.shapes.spec import ShapesSpec

SLOWEST, FASTEST = 1.5, 4.0  # pixels a frame at the reference size
TURN = 0.12  # largest turn in radians a frame
MARGIN = 0.5  # a centre keeps this share of the radius from the border
APART = 1.6  # speed of a crossing pair, in sums of their radii over the whole video
FROM_THE_MIDDLE = 0.25  # a crossing lies within this share of the sides, and of the time


@dataclass(frozen=True)
class Path:
    """A straight path that the border reflects.

    Attributes:
        start: (x, y) at frame 0, in pixels.
        velocity: (x, y) in pixels a frame.
        angle: turn at frame 0, in radians.
        turn: radians a frame.
        low: least (x, y) that a centre may have.
        high: largest (x, y).
    """

    start: tuple[float, float]
    velocity: tuple[float, float]
    angle: float
    turn: float
    low: tuple[float, float]
    high: tuple[float, float]

    def centre(self, frame: int) -> tuple[float, float]:
        """Where the centre is, (x, y) in pixels."""
        straight = (s + v * frame for s, v in zip(self.start, self.velocity))
        x, y = (_reflect(p, a, b) for p, a, b in zip(straight, self.low, self.high))
        return x, y

    def rotation(self, frame: int) -> float:
        """How far the object is turned, in radians."""
        return self.angle + self.turn * frame


def _reflect(position: float, low: float, high: float) -> float:
    """A position that bounces between two walls."""
    span = high - low
    if span <= 0:
        return (low + high) / 2
    offset = (position - low) % (2 * span)
    return low + (offset if offset <= span else 2 * span - offset)


def wandering(rng: np.random.RandomState, spec: ShapesSpec, radius: float) -> Path:
    """A path from anywhere in any direction."""
    low, high = _room(spec, radius)
    start = rng.uniform(low[0], high[0]), rng.uniform(low[1], high[1])
    return _path(rng, spec, radius, start, rng.uniform(0, 2 * math.pi))


def crossing(
    rng: np.random.RandomState, spec: ShapesSpec, radii: tuple[float, float], frames: int
) -> tuple[Path, Path]:
    """Two paths through one point at one time, from different sides.

    Args:
        rng: random numbers.
        spec: size of the frames.
        radii: of the two objects, in pixels.
        frames: length of the video; the two meet about its middle.
    """
    half = FROM_THE_MIDDLE / 2
    meeting = [side * rng.uniform(0.5 - half, 0.5 + half) for side in (spec.width, spec.height)]
    time = (frames - 1) * rng.uniform(0.5 - half, 0.5 + half)
    direction = rng.uniform(0, 2 * math.pi)
    paths = []
    for radius, heading in zip(radii, (direction, direction + rng.uniform(2.2, 4.1))):
        # Fast enough to be apart at both ends of the video.
        speed = rng.uniform(1.0, 1.3) * APART * sum(radii) / frames
        velocity = speed * math.cos(heading), speed * math.sin(heading)
        start = meeting[0] - velocity[0] * time, meeting[1] - velocity[1] * time
        paths.append(_path(rng, spec, radius, start, heading, speed))
    return paths[0], paths[1]


def _room(spec: ShapesSpec, radius: float) -> tuple[tuple[float, float], tuple[float, float]]:
    margin = MARGIN * radius
    return (margin, margin), (spec.width - margin, spec.height - margin)


def _path(
    rng: np.random.RandomState,
    spec: ShapesSpec,
    radius: float,
    start: tuple[float, float],
    heading: float,
    speed: float | None = None,
) -> Path:
    low, high = _room(spec, radius)
    speed = spec.scale * rng.uniform(SLOWEST, FASTEST) if speed is None else speed
    return Path(
        start=start,
        velocity=(speed * math.cos(heading), speed * math.sin(heading)),
        angle=rng.uniform(0, 2 * math.pi),
        turn=rng.uniform(-TURN, TURN),
        low=low,
        high=high,
    )
