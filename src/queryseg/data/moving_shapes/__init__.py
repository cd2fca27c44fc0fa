"""Synthetic videos: the shapes of `queryseg.data.shapes` moving over, under and past each other.

`python -m queryseg.data.moving_shapes --output DIR` writes them in YouTube-VIS format.
"""

from queryseg.data.moving_shapes.clip import Clip, render_clip
from queryseg.data.moving_shapes.spec import MovingShapesSpec
from queryseg.data.moving_shapes.writer import write_moving_shapes

__all__ = ["Clip", "MovingShapesSpec", "render_clip", "write_moving_shapes"]
