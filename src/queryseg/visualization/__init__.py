"""Pictures of images with their objects."""

from queryseg.visualization.grid import make_grid
from queryseg.visualization.objects import DrawnObjects
from queryseg.visualization.painter import PaintStyle, paint

__all__ = ["DrawnObjects", "PaintStyle", "make_grid", "paint"]
