"""A deterministic synthetic set: six shape classes with overlaps, textures and noise.

`python -m queryseg.data.shapes --output DIR` writes it in COCO format.
"""

from queryseg.data.shapes.outlines import CLASS_NAMES
from queryseg.data.shapes.scene import Scene, render_scene
from queryseg.data.shapes.spec import DIFFICULTIES, ShapesSpec
from queryseg.data.shapes.writer import write_shapes

__all__ = ["CLASS_NAMES", "DIFFICULTIES", "Scene", "ShapesSpec", "render_scene", "write_shapes"]
