"""Every override and config that the method's README names works."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from queryseg.engine import apply_overrides, load_config
from queryseg.engine.command_line import build_parser, read_config

README = (Path(__file__).parents[3] / "projects" / "queryinst" / "README.md").read_text()
ABLATIONS = README.partition("## Ablations")[2].partition("## Paper and release")[0]
MODEL_OVERRIDES = re.findall(r"`(model\.[^`]*=[^`]*)`", ABLATIONS)
RECIPES = re.findall(r"`((?:dataloader|optimizer)\.[^`]*=[^`]*)`", README)
PARAMETERS = re.findall(r"^\| `(queryinst_\w+)` .*\| ([\d.]+) \| not yet", README, re.M)
BASE = "queryinst/queryinst_r50_100q_3x.py"


def test_readme_names_all_ablations_recipes_and_configs() -> None:
    assert len(MODEL_OVERRIDES) == 9
    assert len(RECIPES) == 3
    assert len(PARAMETERS) == 9


@pytest.mark.parametrize("overrides", MODEL_OVERRIDES)
def test_ablation_builds_another_model(overrides: str) -> None:
    cfg = apply_overrides(load_config(BASE), overrides.split())
    assert cfg != load_config(BASE)
    with torch.device("meta"):
        assert instantiate(cfg.model).num_classes == 80


@pytest.mark.parametrize("overrides", RECIPES)
def test_recipe_changes_what_is_trained_with(overrides: str) -> None:
    cfg = apply_overrides(load_config(BASE), overrides.split())
    assert cfg != load_config(BASE)
    instantiate(cfg.dataloader.train.mapper)
    with torch.device("meta"):
        cfg.optimizer.params.model = instantiate(cfg.model)
    rates = {group["lr"] for group in instantiate(cfg.optimizer.params)}
    assert rates == ({1e-4, 1e-5} if "lr_multipliers" in overrides else {2.5e-5})


@pytest.mark.parametrize(("name", "millions"), PARAMETERS)
def test_config_has_the_parameters_in_the_table(name: str, millions: str) -> None:
    with torch.device("meta"):
        model = instantiate(load_config(f"queryinst/{name}.py").model)
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.3f}" == millions


def test_every_training_command_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    commands = [shlex.split(line) for line in blocks.splitlines() if "train_net.py" in line]
    assert len(commands) >= 5
    for words in commands:
        read_config(build_parser().parse_intermixed_args(words[2:]))
