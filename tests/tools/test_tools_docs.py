"""The commands and examples of docs/demo.md and docs/checkpoints.md work as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from queryseg.engine import load_config
from queryseg.tools import benchmark, convert, demo, track

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / name).read_text("utf-8") for name in ("demo.md", "checkpoints.md")}
PARSERS = {
    f"queryseg.tools.{tool.__name__.rpartition('.')[2]}": tool.build_parser()
    for tool in (benchmark, convert, demo, track)
}


def blocks(language: str) -> list[str]:
    pattern = rf"```{language}\n(.*?)```"
    return [b for page in PAGES.values() for b in re.findall(pattern, page, flags=re.DOTALL)]


def commands() -> list[list[str]]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_is_understood_and_its_config_exists(words: list[str], monkeypatch):
    monkeypatch.chdir(ROOT)
    assert words[:2] == ["python", "-m"]
    args = PARSERS[words[2]].parse_intermixed_args(words[3:])
    if not args.config_file.startswith("output/"):
        assert "model" in load_config(args.config_file)


def test_every_tool_is_shown():
    assert {words[2] for words in commands()} == set(PARSERS)


def test_the_examples_that_need_no_weights_run(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran = 0
    for example in blocks("python"):
        if "photo.jpg" not in example:
            exec(compile(example, "docs", "exec"), {})
            ran += 1
    assert ran == 3
    out = capsys.readouterr().out
    assert "fastinst_r50_d3 https://" in out
    assert "matched" in out
    assert (tmp_path / "output" / "example" / "last_checkpoint").read_text() == "model_final.pth"


def test_the_examples_with_a_photo_use_names_that_exist():
    examples = [example for example in blocks("python") if "photo.jpg" in example]
    assert len(examples) == 2
    imports = [line for e in examples for line in e.splitlines() if line.startswith("from ")]
    assert len(imports) == 3
    for line in imports:
        exec(compile(line, "docs", "exec"), {})


@pytest.mark.parametrize("option", re.findall(r"\| `(--[^`]*)` \|", PAGES["demo.md"]))
def test_the_defaults_in_the_table_are_the_defaults(option: str):
    flag, value = option.split()
    (action,) = [a for a in demo.build_parser()._actions if flag in a.option_strings]
    assert str(action.default) == value
