"""What a synthetic set is made of: the flags that decide every byte of it."""

from dataclasses import asdict, dataclass
from typing import Any

from queryseg.data.shapes.outlines import CLASS_NAMES

GENERATOR_VERSION = 1  # raise it with any change that alters a byte of the output
REFERENCE_SIDE = 128  # the image side for which radii and areas are stated
DIFFICULTIES = ("colour", "shape")


@dataclass(frozen=True)
class ShapesSpec:
    """One synthetic set.

    Args:
        train: number of training images.
        val: number of validation images.
        height: of every image, in pixels.
        width: of every image, in pixels.
        difficulty: `colour` gives each class its own hue; with `shape` only the outline tells.
        seed: image k of a split depends on the seed, the split and k only, so a larger set begins
            with the smaller one.
        min_objects: fewest objects that are tried in an image.
        max_objects: most of them.
        min_radius: smallest circumradius, in pixels of an image whose shorter side is 128.
        max_radius: largest circumradius, likewise.
        classes: names of the shapes to draw; empty: all six.
    """

    train: int = 800
    val: int = 100
    height: int = 128
    width: int = 128
    difficulty: str = "colour"
    seed: int = 0
    min_objects: int = 1
    max_objects: int = 4
    min_radius: float = 13.0
    max_radius: float = 32.0
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.difficulty not in DIFFICULTIES:
            raise ValueError(f"difficulty must be one of {DIFFICULTIES}, got {self.difficulty!r}")
        unknown = set(self.classes) - set(CLASS_NAMES)
        if unknown:
            raise ValueError(f"unknown shapes {sorted(unknown)}: choose from {CLASS_NAMES}")
        if min(self.height, self.width) < 16:
            raise ValueError(f"images need at least 16 x 16 pixels, got {self.height}x{self.width}")
        if self.train < 0 or self.val < 0:
            raise ValueError(f"image counts cannot be negative, got {self.train} and {self.val}")
        if not 0 <= self.min_objects <= self.max_objects:
            raise ValueError(
                f"need 0 <= min_objects <= max_objects, got {self.min_objects}, {self.max_objects}"
            )
        if not 0 < self.min_radius <= self.max_radius:
            raise ValueError(
                f"need 0 < min_radius <= max_radius, got {self.min_radius}, {self.max_radius}"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in [0, 2**32), got {self.seed}")

    @property
    def scale(self) -> float:
        """Pixels that one pixel of the reference size becomes."""
        return min(self.height, self.width) / REFERENCE_SIDE

    def as_dict(self) -> dict[str, Any]:
        """All that decides the bytes, for the file beside the images."""
        flags = asdict(self)
        if not self.classes:
            del flags["classes"]  # as it was before there was a choice
        return {"generator_version": GENERATOR_VERSION, **flags}
