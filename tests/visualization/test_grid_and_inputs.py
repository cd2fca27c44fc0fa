"""Grids, the inputs of the demo, video, and views that methods add."""

import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from queryseg.visualization import drawings, make_grid
from queryseg.visualization.errors import PictureError
from queryseg.visualization.inputs import find_inputs, is_video
from queryseg.visualization.video import draw_video


def plain(value: int, height: int = 40, width: int = 40) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_pictures_stand_in_rows_with_gaps_and_groups():
    rows = [[plain(v) for v in (10, 20, 30, 40)], [plain(50), plain(60)]]
    grid = make_grid(rows, tile_px=40, gap_px=10, group=2)
    assert grid.shape == (10 + 2 * 50, 10 + 4 * 50 + 10, 3)
    lefts = [10, 60, 120, 170]
    for left, value in zip(lefts, (10, 20, 30, 40)):
        assert (grid[10:50, left : left + 40] == value).all()
    for left, value in zip(lefts, (50, 60)):
        assert (grid[60:100, left : left + 40] == value).all()
    assert (grid[60:100, 120:] == 255).all()
    assert (grid[:, 100:120] == 255).all(), "twice the gap between groups"


def test_headings_stand_above_their_columns():
    without = make_grid([[plain(0), plain(0)]], tile_px=40, gap_px=10)
    grid = make_grid([[plain(0), plain(0)]], ["a", "b"], tile_px=40, gap_px=10)
    added = grid.shape[0] - without.shape[0]
    assert added > 10
    for left in (10, 60):
        assert (grid[: added + 5, left : left + 40] < 128).any()
    assert (grid[: added + 5, 50:60] == 255).all()


def test_pictures_of_any_size_are_fitted_and_centred():
    grid = make_grid([[plain(7, 200, 100), plain(9, 30, 60)]], tile_px=60, gap_px=0)
    assert grid.shape == (60, 120, 3)
    assert (grid[:, 15:45] == 7).all()
    assert (grid[15:45, 60:] == 9).all()
    assert (grid[:15, 60:] == 255).all()


def test_a_grid_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one picture"):
        make_grid([[]])


def test_files_folders_and_patterns_become_files(tmp_path: Path):
    for name in ("b.PNG", "a.jpg", "clip.mp4", "notes.txt", "odd"):
        (tmp_path / name).touch()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "c.png").touch()

    def names(*given: str) -> list[str]:
        return [file.name for file in find_inputs(str(tmp_path / g) for g in given)]

    assert names("") == ["a.jpg", "b.PNG", "clip.mp4"]
    assert names("*.jpg", "odd") == ["a.jpg", "odd"]
    assert names("b.PNG", "") == ["b.PNG", "a.jpg", "clip.mp4"]
    assert names("**/*.png") == ["c.png"]
    for nothing in ("none.jpg", "*.gif", "inner/deeper"):
        with pytest.raises(PictureError, match="no such file or folder"):
            names(nothing)


def test_videos_are_told_by_their_ending():
    assert is_video(Path("a/clip.MP4"))
    assert not is_video(Path("a/clip.png"))


def write_video(path: Path, frames: int, height: int = 48, width: int = 64) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (width, height))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((height, width, 3), 20 * index, np.uint8))
    writer.release()


def test_a_video_is_drawn_frame_by_frame(tmp_path: Path):
    write_video(tmp_path / "in.mp4", 6)
    seen = []

    def invert(frame_rgb: np.ndarray) -> np.ndarray:
        seen.append(int(frame_rgb.mean().round()))
        return 255 - frame_rgb

    assert draw_video(tmp_path / "in.mp4", tmp_path / "out.mp4", invert) == 6
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    values = []
    while (read := capture.read())[0]:
        assert read[1].shape == (48, 64, 3)
        values.append(read[1].mean())
    capture.release()
    assert seen == pytest.approx([0, 20, 40, 60, 80, 100], abs=6)
    assert values == pytest.approx([255 - value for value in seen], abs=6)


def test_a_file_that_is_no_video_says_so(tmp_path: Path):
    (tmp_path / "in.mp4").write_bytes(b"not a video")
    with pytest.raises(PictureError, match=r"in\.mp4: not a video"):
        draw_video(tmp_path / "in.mp4", tmp_path / "out.mp4", lambda frame: frame)
    assert not (tmp_path / "out.mp4").exists()


def test_methods_add_views_of_their_own(monkeypatch):
    module = ModuleType("queryseg.projects.example.draw")
    module.DRAWINGS = {"depth": lambda predictor, image: drawings.Drawn(image, "depth")}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(drawings, "project_modules", lambda name: [module])
    picture, caption = drawings.find_drawing("depth")(None, plain(3))
    assert caption == "depth"
    assert (picture == 3).all()
    assert drawings.find_drawing("instances") is drawings.draw_instances
    with pytest.raises(PictureError, match="known are depth, instances"):
        drawings.find_drawing("queries")
