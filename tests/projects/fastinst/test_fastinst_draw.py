"""The picture of queries and what they became."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fastinst_model import image_input, small_model

from queryseg.engine import apply_overrides, load_config
from queryseg.predictor import Predictor
from queryseg.projects.fastinst.draw import UNUSED, _with_dots, draw_queries
from queryseg.visualization.drawings import known_drawings
from queryseg.visualization.errors import PictureError
from queryseg.visualization.palette import class_colour

CONFIG = "fastinst/fastinst_tiny.py"


def _predictor(folder: Path, *overrides: str) -> Predictor:
    torch.save(small_model(*overrides).state_dict(), folder / "weights.pth")
    cfg = apply_overrides(load_config(CONFIG), list(overrides))
    return Predictor(cfg, folder / "weights.pth", device="cpu", score_thresh=0.0)


def test_queries_lie_at_the_middle_of_the_cells_they_were_picked_from() -> None:
    model = small_model().eval()
    inputs = image_input(60, 90)
    inputs["height"], inputs["width"] = 120, 270
    seen = []
    model.decoder.queries.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        result = model([inputs])[0]
    assert result["query_points"].shape == (25, 2)
    for point, pixel in zip(result["query_points"].tolist(), seen[0].pixel_idx[0].tolist()):
        row, column = divmod(pixel, 96 // 8)
        assert point == pytest.approx([(8 * column + 4) * 270 / 90, (8 * row + 4) * 120 / 60])
    queries = result["instances"].query_idx
    assert len(queries) == len(result["instances"])
    assert set(queries.tolist()) <= set(range(25))


def test_unused_queries_are_light_dots_where_they_were_picked(tmp_path: Path) -> None:
    predictor = _predictor(tmp_path)
    predictor.score_thresh = 2.0  # no instance at all
    drawn = draw_queries(predictor, np.zeros((128, 128, 3), dtype=np.uint8))
    assert drawn.caption == "25 queries, 0 with an instance"
    colours = {tuple(pixel) for pixel in drawn.picture.reshape(-1, 3).tolist()}
    assert UNUSED in colours


def test_used_queries_have_the_colour_of_their_class(tmp_path: Path) -> None:
    drawn = draw_queries(
        _predictor(tmp_path, "model.max_detections=5"), np.zeros((128, 128, 3), dtype=np.uint8)
    )
    assert not drawn.caption.endswith(" 0 with an instance")
    colours = {tuple(pixel) for pixel in drawn.picture.reshape(-1, 3).tolist()}
    assert colours & {class_colour(index) for index in range(6)}


def test_dots_lie_on_their_points() -> None:
    points = np.array([[20.0, 50.0], [90.0, 10.0]])
    picture = _with_dots(np.zeros((100, 120, 3), dtype=np.uint8), points, [UNUSED, (9, 200, 9)])
    assert picture[50, 20].tolist() == list(UNUSED)
    assert picture[10, 90].tolist() == [9, 200, 9]
    assert not picture[70:, :].any()


def test_queries_without_a_place_are_refused(tmp_path: Path) -> None:
    predictor = _predictor(tmp_path, "model.decoder.queries.kind=zero")
    with pytest.raises(PictureError, match="no place in the image"):
        draw_queries(predictor, np.zeros((128, 128, 3), dtype=np.uint8))


def test_demo_offers_the_drawing() -> None:
    assert known_drawings()["queries"] is draw_queries
