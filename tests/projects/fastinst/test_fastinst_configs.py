"""Every FastInst config loads, survives saving, and states its numbers once."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig

from queryseg.engine import apply_overrides, load_config
from queryseg.engine.config import installed_configs

CONFIGS = [name for name in installed_configs() if name.startswith("fastinst/")]


def _shapes(cfg: DictConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = instantiate(cfg.model)
    return {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_saved_and_loaded_again_builds_the_same_model(name: str, tmp_path: Path) -> None:
    cfg = load_config(name)
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    again = load_config(tmp_path / "saved.yaml")
    assert not list(tmp_path.glob("*.pkl"))
    assert _shapes(again) == _shapes(cfg)


@pytest.mark.parametrize("name", CONFIGS)
def test_class_query_and_width_numbers_stand_once(name: str) -> None:
    numbers = {
        "model.num_classes": 11,
        "model.decoder.queries.num_queries": 37,
        "model.decoder.embed_dim": 96,
    }
    overrides = [f"{key}={value}" for key, value in numbers.items()]
    shapes = _shapes(apply_overrides(load_config(name), overrides))
    widths = {shape[-1] for key, shape in shapes.items() if "_embed.layers." in key}
    assert widths == {96, 12}
    assert shapes["decoder.positions.grid"] == (1, 96, 6, 6)
    assert shapes["decoder.queries.classifier.2.weight"] == (12, 96, 1, 1)
    assert shapes["decoder.heads.0.class_embed.layers.2.weight"] == (12, 96)


SECTIONS = {"model", "dataloader", "optimizer", "lr_multiplier", "train"}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_holds_its_five_sections_and_nothing_else(name: str) -> None:
    assert set(load_config(name)) == SECTIONS
