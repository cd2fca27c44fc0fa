"""Official files become ours and go back, with a name that tells their content."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from queryseg.checkpoint import CheckpointError, open_checkpoint
from queryseg.checkpoint.registry import known_layouts
from queryseg.engine import load_config
from queryseg.tools import convert
from queryseg.tools.console import ToolError

CONFIG = "fastinst/fastinst_tiny.py"


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A file in the official layout, with what releases carry beside it."""
    torch.manual_seed(1)
    state = instantiate(load_config(CONFIG).model).state_dict()
    layout = next(known for known in known_layouts() if known.name.startswith("FastInst"))
    release = layout.convert_back(state)
    assert release.keys() != state.keys()
    release["criterion.empty_weight"] = torch.ones(7)
    torch.save({"model": release, "iteration": 5}, tmp_path / "official.pth")
    return tmp_path / "official.pth"


def run(file: Path, output: Path, *more: str) -> Path:
    options = ["--input", str(file), "--config-file", CONFIG, "--output", str(output), *more]
    assert convert.main(options) == 0
    (written,) = output.iterdir()
    return written


def test_an_official_file_becomes_ours_with_a_report(official: Path, tmp_path: Path, capsys):
    written = run(official, tmp_path / "out", "--report", str(tmp_path / "report.json"))
    digest = hashlib.sha256(written.read_bytes()).hexdigest()[:8]
    assert written.name == f"fastinst_tiny_{digest}.pth"
    contents = open_checkpoint(written)
    torch.manual_seed(1)
    expected = instantiate(load_config(CONFIG).model).state_dict()
    assert contents.weights.keys() == expected.keys()
    assert all(torch.equal(contents.weights[name], expected[name]) for name in expected)
    assert "gear" in contents.class_names
    assert contents.extras == {}
    out = capsys.readouterr().out
    assert "(FastInst official" in out
    assert f"{len(expected)} of {len(expected)} entries" in out
    assert "criterion.empty_weight" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["share"] == 1.0
    assert report["ignored"] == ["criterion.empty_weight"]


def test_ours_goes_back_to_the_official_names(official: Path, tmp_path: Path):
    ours = run(official, tmp_path / "ours")
    back = run(ours, tmp_path / "back", "--to-official")
    assert back.name.startswith("fastinst_tiny_official_")
    release, returned = open_checkpoint(official).weights, open_checkpoint(back).weights
    del release["criterion.empty_weight"]
    assert returned.keys() == release.keys()
    assert all(torch.equal(returned[name], release[name]) for name in release)


def test_the_same_content_gets_the_same_name(official: Path, tmp_path: Path):
    first, second = run(official, tmp_path / "a"), run(official, tmp_path / "b")
    assert first.name == second.name


def test_a_part_is_written_only_when_allowed(official: Path, tmp_path: Path):
    weights = open_checkpoint(official).weights
    part = {name: value for name, value in weights.items() if name.startswith("backbone.")}
    torch.save(part, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match="entries match"):
        run(tmp_path / "part.pth", tmp_path / "out")
    written = run(tmp_path / "part.pth", tmp_path / "out", "--allow-partial")
    assert open_checkpoint(written).weights.keys() == part.keys()


def test_a_model_without_a_release_has_no_official_names(monkeypatch):
    state = {"backbone.stem.conv1.weight": torch.zeros(1), "other": torch.zeros(1)}
    with pytest.raises(ToolError, match=r"no official layout for this model .*lacks other\)"):
        convert.to_official(state)
    monkeypatch.setattr(convert, "known_layouts", tuple)
    with pytest.raises(ToolError, match=r"no official layout for this model$"):
        convert.to_official(state)


def test_a_file_of_a_deeper_model_is_refused(tmp_path: Path):
    cfg = load_config(CONFIG)
    cfg.model.decoder.num_layers = 3
    torch.save(instantiate(cfg.model).state_dict(), tmp_path / "deeper.pth")
    with pytest.raises(CheckpointError, match=r"(?s)no place for.*decoder\.layers\.1\.\* \(30\)"):
        run(tmp_path / "deeper.pth", tmp_path / "out")
