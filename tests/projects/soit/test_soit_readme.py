"""Every override and config that the method's README names works."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from queryseg.engine import apply_overrides, load_config

README = Path(__file__).parents[3] / "projects" / "soit" / "README.md"
OVERRIDES = re.findall(r"`(model\.[^`]*=[^`]*)`", README.read_text())
CONFIGS = re.findall(r"^\| `(soit_\w+)` .*\| ([\d.]+) \| not yet", README.read_text(), re.M)


def test_readme_names_all_ablations_and_configs() -> None:
    assert len(OVERRIDES) == 15 + 8  # ablations and variants
    assert len(CONFIGS) == 3


@pytest.mark.parametrize("overrides", dict.fromkeys(OVERRIDES))
def test_override_builds_and_changes_the_config(overrides: str) -> None:
    family = load_config("soit/soit_r50_50ep.py")
    assert apply_overrides(family, overrides.split()) != load_config("soit/soit_r50_50ep.py")
    small = apply_overrides(load_config("soit/soit_tiny.py"), overrides.split())
    with torch.device("meta"):
        assert instantiate(small.model).num_classes == 6


@pytest.mark.parametrize(("name", "millions"), CONFIGS)
def test_config_has_the_parameters_in_the_table(name: str, millions: str) -> None:
    with torch.device("meta"):
        model = instantiate(load_config(f"soit/{name}.py").model)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f"{count / 1e6:.3f}" == millions
