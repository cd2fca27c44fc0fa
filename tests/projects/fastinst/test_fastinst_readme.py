"""Every override and config that the method's README names works."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from queryseg.engine import apply_overrides, load_config

README = Path(__file__).parents[3] / "projects" / "fastinst" / "README.md"
OVERRIDES = re.findall(r"`(model\.[^`]*=[^`]*)`", README.read_text())
CONFIGS = re.findall(r"^\| `(fastinst_\w+)` .*\| ([\d.]+) \| not yet", README.read_text(), re.M)


def test_readme_names_all_ablations_and_configs() -> None:
    assert len(OVERRIDES) == 30 + 7  # the tables of the paper, and those on synthetic shapes
    assert len(CONFIGS) == 6


@pytest.mark.parametrize("overrides", OVERRIDES)
def test_ablation_builds(overrides: str) -> None:
    cfg = apply_overrides(load_config("fastinst/fastinst_r50_d3.py"), overrides.split())
    before = load_config("fastinst/fastinst_r50_d3.py")
    assert cfg != before
    with torch.device("meta"):
        assert instantiate(cfg.model).num_classes == 80


@pytest.mark.parametrize(("name", "millions"), CONFIGS)
def test_config_has_the_parameters_in_the_table(name: str, millions: str) -> None:
    with torch.device("meta"):
        model = instantiate(load_config(f"fastinst/{name}.py").model)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f"{count / 1e6:.3f}" == millions
