"""What a set of synthetic videos is made of: the flags that decide every byte of it."""

from dataclasses import dataclass
from typing import Any

from queryseg.data.shapes.spec import ShapesSpec

GENERATOR_VERSION = 1  # raise it with any change that alters a byte of the output
FEWEST_OBJECTS = 2  # the pair that crosses


@dataclass(frozen=True)
class MovingShapesSpec(ShapesSpec):
    """One set of synthetic videos.

    Args:
        train: number of training videos.
        val: number of validation videos.
        height: of every frame, in pixels.
        width: of every frame, in pixels.
        min_objects: fewest objects of a video. Two are there always: they are of one class, and
            their paths cross.
        max_objects: most of them.
        min_radius: smallest circumradius, in pixels of a frame whose shorter side is 128.
        max_radius: largest circumradius, likewise.
        frames: of every video.
    """

    train: int = 240
    val: int = 25
    height: int = 96
    width: int = 128
    min_objects: int = 2
    max_objects: int = 3
    min_radius: float = 17.0
    max_radius: float = 32.0
    frames: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_objects < FEWEST_OBJECTS:
            raise ValueError(f"a video has at least {FEWEST_OBJECTS} objects, which cross")
        if self.frames < 2:
            raise ValueError(f"a video has at least 2 frames, got {self.frames}")

    def as_dict(self) -> dict[str, Any]:
        """All that decides the bytes, for the file beside the frames."""
        return {**super().as_dict(), "moving_generator_version": GENERATOR_VERSION}
