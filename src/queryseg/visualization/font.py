"""The typeface of labels: the one that comes with matplotlib, so that it is everywhere."""

from functools import cache
from pathlib import Path

from PIL import ImageFont


@cache
def load_font(height_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans in a height given in pixels."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", name)), height_px)
