"""The demo on a small FastInst with random weights, from a folder without a checkout."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from PIL import Image

from queryseg.checkpoint import Checkpointer
from queryseg.data.shapes import CLASS_NAMES
from queryseg.engine import load_config
from queryseg.tools import demo
from queryseg.tools.console import ToolError, run_tool, say
from queryseg.visualization.errors import PictureError
from queryseg.visualization.painter import PaintStyle

CONFIG = "fastinst/fastinst_tiny.py"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights, three images and their annotations."""
    folder = tmp_path_factory.mktemp("demo")
    torch.manual_seed(0)
    model = instantiate(load_config(CONFIG).model)
    Checkpointer(model, str(folder), class_names=CLASS_NAMES).save("weights")
    (folder / "images").mkdir()
    for index in range(3):
        pixels = np.random.RandomState(index).randint(0, 255, (64, 64 + 16 * index, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
    (folder / "images" / "broken.jpg").write_bytes(b"\xff\xd8 not an image")
    (folder / "annotations.json").write_text(
        """{"images": [{"id": 1, "file_name": "0.png", "height": 64, "width": 64},
                       {"id": 2, "file_name": "2.png", "height": 64, "width": 96}],
            "categories": [{"id": 7, "name": "disc"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "area": 400,
              "bbox": [10, 10, 20, 20], "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}]}"""
    )
    return folder


def arguments(workplace: Path, *more: str) -> list[str]:
    weights = str(workplace / "weights.pth")
    return ["--config-file", CONFIG, "--weights", weights, "--device", "cpu", *more]


def own_data(workplace: Path) -> list[str]:
    return ["--json", str(workplace / "annotations.json"), "--images", str(workplace / "images")]


def test_a_folder_is_drawn_from_anywhere(workplace: Path, tmp_path: Path):
    run = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "queryseg.tools.demo", *arguments(workplace)),
            *("--input", str(workplace / "images"), "--output", "drawn", "--score-thresh", "0.1"),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["0.png", "1.png", "2.png"]
    for index in range(3):
        with Image.open(tmp_path / "drawn" / f"{index}.png") as picture:
            assert max(picture.size) == PaintStyle().min_long_side
    lines = run.stdout.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{workplace / 'images' / '0.png'}: ")
    assert lines[-1] == "1 of 4 inputs were skipped"
    assert "broken.jpg: cannot be read" in run.stderr


def test_overrides_may_stand_behind_the_inputs(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    predictor = demo.Predictor

    def watched(cfg: Any, *args: Any, **options: Any) -> Any:
        asked.append(cfg.model.max_detections)
        return predictor(cfg, *args, **options)

    monkeypatch.setattr(demo, "Predictor", watched)
    odd = tmp_path / "a=b.png"
    odd.write_bytes((workplace / "images" / "0.png").read_bytes())
    words = arguments(workplace, "--output", str(tmp_path / "drawn"))
    assert demo.main([*words, "--input", str(odd), "model.max_detections=3"]) == 0
    assert asked == [3]
    assert (tmp_path / "drawn" / "a=b.png").is_file()


def test_a_grid_shows_ground_truth_beside_predictions(workplace: Path, tmp_path: Path, capsys):
    grid = tmp_path / "new" / "grid.png"
    options = ("--grid", str(grid), "--num", "5", "--score-thresh", "1.0", "model.max_detections=5")
    code = demo.main(arguments(workplace, *own_data(workplace), *options))
    assert code == 0
    assert capsys.readouterr().out.endswith(f"-> {grid}\n")
    with Image.open(grid) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    # Four columns in two groups: truth and prediction of both images, 400 pixels each.
    assert pixels.shape[1] == 4 * 400 + 5 * 12 + 12
    top = pixels.shape[0] - 400 - 12
    truth, prediction = (pixels[top : top + 400, left : left + 400] for left in (12, 424))
    changed = np.abs(truth - prediction).max(axis=2) > 8
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    # Only the annotated square (10 to 30 of 64 pixels) and its label above differ.
    assert columns[0] == pytest.approx(10 / 64 * 400, abs=6)
    assert columns[-1] == pytest.approx(30 / 64 * 400, abs=6)
    assert rows[-1] == pytest.approx(30 / 64 * 400, abs=6)
    second = [pixels[top : top + 400, left : left + 400] for left in (848, 1260)]
    assert np.array_equal(*second), "no objects and no predictions: twice the same image"


def test_without_a_grid_every_image_of_a_data_set_gets_a_picture(workplace: Path, tmp_path: Path):
    options = ("--num", "2", "--output", str(tmp_path / "out"))
    assert demo.main(arguments(workplace, *own_data(workplace), *options)) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.png", "2.png"]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--input", "a.png", "--dataset", "shapes_val"],
        ["--json", "a.json"],
        ["--images", "folder", "--input", "a.png"],
    ],
)
def test_contradicting_arguments_are_refused(workplace: Path, more: list[str], capsys):
    with pytest.raises(SystemExit):
        demo.main(arguments(workplace, *more))
    assert "usage:" in capsys.readouterr().err


def test_what_does_not_exist_is_named(workplace: Path):
    def run(*more: str) -> None:
        demo.main(arguments(workplace, *more))

    with pytest.raises(PictureError, match=r"none\.jpg: no such file"):
        run("--input", "none.jpg")
    with pytest.raises(PictureError, match=r"nothing is called 'query'; known are instances"):
        run("--input", str(workplace / "images" / "0.png"), "--draw", "query")
    with pytest.raises(ToolError, match=r"no data set named 'shape_val'.*shapes_val"):
        run("--dataset", "shape_val")
    with pytest.raises(FileNotFoundError, match="no such image folder: nowhere"):
        run("--json", str(workplace / "annotations.json"), "--images", "nowhere")
    with pytest.raises(ToolError, match=r"would overwrite .*0\.png"):
        folder = str(workplace / "images")
        run("--input", f"{folder}/0.png", "--output", folder)
    with pytest.raises(ToolError, match=r"cannot write .*grid\.xyz"):
        run(*own_data(workplace), "--num", "1", "--grid", str(workplace / "grid.xyz"))


def test_inputs_of_one_name_get_numbers():
    inputs = [Path("a/1.jpg"), Path("b/1.png"), Path("c/1.mp4"), Path("c/2.jpg")]
    targets = demo._target_files(inputs, Path("out"))
    assert [t.name for t in targets] == ["1.png", "1_2.png", "1_3.mp4", "2.png"]


def test_a_tool_ends_with_its_code_or_with_one_line(capsys):
    with pytest.raises(SystemExit) as ending:
        run_tool(lambda argv: len(argv), ["a", "b"])
    assert ending.value.code == 2

    def mistaken(argv: object) -> int:
        raise ToolError("write it differently")

    with pytest.raises(SystemExit) as ending:
        run_tool(mistaken)
    assert ending.value.code == "error: write it differently"

    def broken(argv: object) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_tool(broken)


def test_answers_go_to_stdout(capsys):
    say("line")
    say()
    assert capsys.readouterr().out == "line\n\n"
