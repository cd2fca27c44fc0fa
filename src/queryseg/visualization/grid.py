"""A grid of pictures with headings: ground truth beside predictions."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from queryseg.visualization.font import load_font

BACKGROUND = (255, 255, 255)
HEADING = (60, 60, 60)


def make_grid(
    rows: Sequence[Sequence[np.ndarray]],
    headings: Sequence[str] = (),
    *,
    tile_px: int = 400,
    gap_px: int = 12,
    group: int = 1,
) -> np.ndarray:
    """Lay pictures out in rows of equal cells, each fitted into its cell and centred.

    Args:
        rows: pictures (h, w, 3) uint8, of any sizes; the last row may be shorter.
        headings: one text per column.
        tile_px: the longer side of a cell.
        gap_px: space between cells; twice as much between groups.
        group: number of columns that belong together.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: there is no picture.
    """
    pictures = [picture for row in rows for picture in row]
    if not pictures:
        raise ValueError("a grid needs at least one picture")
    fitted = [[_fit(picture, tile_px) for picture in row] for row in rows]
    cell_w = max(picture.shape[1] for row in fitted for picture in row)
    cell_h = max(picture.shape[0] for row in fitted for picture in row)
    columns = max(len(row) for row in rows)
    lefts = [gap_px + c * (cell_w + gap_px) + (c // group) * gap_px for c in range(columns)]
    font_px = max(12, tile_px // 18)
    top = 2 * gap_px + font_px if headings else gap_px
    width = lefts[-1] + cell_w + gap_px
    grid = np.full((top + len(rows) * (cell_h + gap_px), width, 3), BACKGROUND, dtype=np.uint8)
    for r, row in enumerate(fitted):
        for left, picture in zip(lefts, row):
            y = top + r * (cell_h + gap_px) + (cell_h - picture.shape[0]) // 2
            x = left + (cell_w - picture.shape[1]) // 2
            grid[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    centres = [(left + cell_w / 2, (top - gap_px / 2) / 2) for left in lefts]
    return _with_headings(grid, list(zip(centres, headings)), font_px)


def _fit(picture: np.ndarray, tile_px: int) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = tile_px / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return picture
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(picture), size, interpolation=how)


def _with_headings(
    grid: np.ndarray, headings: Sequence[tuple[tuple[float, float], str]], font_px: int
) -> np.ndarray:
    image = Image.fromarray(grid)
    draw = ImageDraw.Draw(image)
    for centre, text in headings:
        draw.text(centre, text, font=load_font(font_px, bold=True), fill=HEADING, anchor="mm")
    return np.asarray(image)
