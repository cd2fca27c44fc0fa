"""The picture of the quadtree."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transfiner_model import small_model

from queryseg.engine import apply_overrides, load_config
from queryseg.predictor import Predictor
from queryseg.projects.mask_transfiner import draw
from queryseg.visualization.errors import PictureError

HEAD = "model.roi_heads.mask_head"


def _predictor(folder: Path, *overrides: str) -> Predictor:
    overrides = (*overrides, "model.roi_heads.box_predictor.test_topk_per_image=3")
    torch.save(small_model(*overrides).state_dict(), folder / "weights.pth")
    cfg = apply_overrides(load_config("mask_transfiner/mask_transfiner_tiny.py"), list(overrides))
    return Predictor(cfg, folder / "weights.pth", device="cpu", score_thresh=0.0)


def test_cells_fill_the_boxes_of_an_image_that_the_model_sees_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = _predictor(tmp_path, f"{HEAD}.region.kind=full")  # all cells of every box
    image = np.random.RandomState(0).randint(0, 256, (256, 384, 3), dtype=np.uint8)
    seen: list[Any] = []

    def remember(canvas: np.ndarray, levels: list[np.ndarray], scale: np.ndarray) -> np.ndarray:
        seen.append((levels, scale * (384 / canvas.shape[1], 256 / canvas.shape[0])))
        return canvas

    monkeypatch.setattr(draw, "_with_cells", remember)
    drawn = draw.draw_quadtree(predictor, image)
    boxes = predictor(np.ascontiguousarray(image[:, :, ::-1])).pred_boxes.tensor.numpy()
    assert len(boxes) == 3
    assert drawn.caption == f"3 objects, {3 * (14**2 + 28**2 + 56**2)} cells refined"
    ((levels, scale),) = seen
    for size, corners in zip((14, 28, 56), levels):
        cells = (corners.reshape(-1, 2, 2) * scale).reshape(3, size**2, 4)
        hull = np.concatenate([cells[..., :2].min(1), cells[..., 2:].max(1)], 1)
        np.testing.assert_allclose(hull, boxes, atol=1e-2)


def test_cells_have_the_colours_of_their_levels() -> None:
    canvas = np.zeros((40, 60, 3), np.uint8)
    levels = [np.array([[1.0, 1, 9, 9]]), np.array([[20.0, 10, 24, 14]]), np.zeros((0, 4))]
    picture = draw._with_cells(canvas, levels, np.array([2.0, 1.0]))
    assert picture[1, 2].tolist() == list(draw.LEVEL_COLOURS[0])  # a corner, twice as far right
    assert picture[10, 40].tolist() == list(draw.LEVEL_COLOURS[1])
    assert picture[5, 10].any() and not picture[20:].any()


def test_a_model_that_does_not_refine_is_refused(tmp_path: Path) -> None:
    predictor = _predictor(tmp_path, f"{HEAD}.refiner=null")
    with pytest.raises(PictureError, match="nothing to draw"):
        draw.draw_quadtree(predictor, np.zeros((64, 64, 3), np.uint8))
