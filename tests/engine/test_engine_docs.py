"""The commands and keys of docs/training.md are those that exist."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from queryseg.engine import load_config
from queryseg.engine.command_line import build_parser, read_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def training_commands() -> list[list[str]]:
    return [words for words in commands() if "train_net.py" in words]


@pytest.mark.parametrize("words", training_commands(), ids=" ".join)
def test_a_command_of_the_page_is_understood(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert words[0] in ("python", "torchrun")
    program = words.index("train_net.py")
    args = build_parser().parse_intermixed_args(words[program + 1 :])
    monkeypatch.chdir(ROOT)
    cfg, _ = read_config(args)
    monkeypatch.chdir(tmp_path)  # and after installing a wheel
    assert read_config(args)[0] == cfg
    for key, value in (override.split("=") for override in args.opts):
        found = OmegaConf.select(cfg, key)
        assert found == (float(value) if isinstance(found, float) else yaml.safe_load(value))


def test_the_page_has_the_commands_that_it_promises() -> None:
    text = "\n".join(" ".join(words) for words in training_commands())
    assert len(training_commands()) == 9
    for flag in (
        "--resume",
        "--eval-only",
        "--batch-size",
        "--num-gpus",
        "--train-json",
        "torchrun",
    ):
        assert flag in text


def test_the_commands_that_do_not_train_parse_their_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = [words for words in commands() if "train_net.py" not in words]
    assert [words[:2] for words in others] == [["python", "benchmarks/overfit.py"]]
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    args = importlib.import_module("overfit").parse_arguments(others[0][2:])
    assert (args.method, args.json.name) == (["fastinst"], "train.json")


def test_every_key_of_train_is_explained_and_every_explained_key_exists() -> None:
    train = load_config("common/train.py").train
    table = PAGE.split("## Keys of `train`")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    explained = {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}
    keys = {
        f"{key}.{inner}" if inner else str(key)
        for key, value in train.items()
        for inner in (value if OmegaConf.is_dict(value) else [""])
    }
    keys = {"ddp.*" if key.startswith("ddp.") else key for key in keys}
    assert explained == keys
