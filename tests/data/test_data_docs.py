"""The commands of docs/data.md work as they stand there, with paths put in."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from queryseg.data.bdd100k import main as convert_bdd100k
from queryseg.data.known_datasets import Kind
from queryseg.data.moving_shapes import MovingShapesSpec
from queryseg.data.moving_shapes.__main__ import build_parser as moving_shapes_parser
from queryseg.data.registration import KNOWN_DATASETS
from queryseg.data.shapes.__main__ import build_parser as shapes_parser
from queryseg.engine.command_line import build_parser as train_parser
from queryseg.engine.command_line import read_config
from queryseg.engine.own_data import kind_of_data
from queryseg.tools.check_dataset import main as check_dataset

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def test_every_command_is_one_that_is_tested_here() -> None:
    programs = [" ".join(words[1:3]) if words[1] == "-m" else words[1] for words in commands()]
    assert set(programs) == {
        "-m queryseg.tools.check_dataset",
        "-m queryseg.data.shapes",
        "-m queryseg.data.moving_shapes",
        "-m queryseg.data.bdd100k",
        "train_net.py",
    }


def test_the_check_commands_run(small_set: Any, capsys: pytest.CaptureFixture[str]) -> None:
    small_set.add_image(1)
    small_set.add_object(1)
    json_file, images = small_set.write()
    paths = {"--json": str(json_file), "--images": str(images)}
    checked = 0
    for words in commands():
        if "queryseg.tools.check_dataset" in words:
            flags = words[3:]
            argv = [paths.get(flags[i - 1], word) if i else word for i, word in enumerate(flags)]
            assert check_dataset(argv) == 0
            checked += 1
    assert checked == 2
    assert "READY" in capsys.readouterr().out


def test_the_train_commands_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    kinds = []
    for words in commands():
        if words[1] == "train_net.py":
            args = train_parser().parse_intermixed_args(words[2:])
            cfg, _ = read_config(args)
            assert cfg.train.output_dir == "output/mine"
            kinds.append((kind_of_data(cfg), args.val_images))
    assert kinds == [(Kind.COCO, "path/to/val_images"), (Kind.VIDEO, "path/to/val_frames")]


def test_the_bdd100k_command_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = [words for words in commands() if words[2] == "queryseg.data.bdd100k"]
    assert convert_bdd100k(words[3:]) == 2
    assert "path/to/bitmasks/train does not exist" in capsys.readouterr().out


def test_the_shapes_command_and_the_flags_in_the_text_are_understood() -> None:
    (words,) = [words for words in commands() if words[2] == "queryseg.data.shapes"]
    args = shapes_parser().parse_args(words[3:])
    assert (args.train, args.val, args.size) == (800, 100, (128, 128))
    for text in re.findall(r"`(--(?:difficulty|size|objects|radius|seed) [^`]*)`", PAGE):
        assert shapes_parser().parse_args(shlex.split(text))


def test_the_moving_shapes_command_states_the_defaults() -> None:
    (words,) = [words for words in commands() if "queryseg.data.moving_shapes" in words]
    args, spec = moving_shapes_parser().parse_args(words[3:]), MovingShapesSpec()
    assert (args.train, args.val, args.frames) == (spec.train, spec.val, spec.frames)


def test_names_in_the_text_exist() -> None:
    assert all(f"`{name}`" in PAGE for name in KNOWN_DATASETS)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for block in blocks:
        for line in block.splitlines():
            if line.startswith("from "):
                exec(compile(line, "docs/data.md", "exec"), {})
    assert len(blocks) == 1
