"""Configs of Mask Frozen-DETR."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from torch import nn

from queryseg.checkpoint.zoo import known_releases
from queryseg.engine import apply_overrides, load_config
from queryseg.engine.config import installed_configs

CONFIGS = [name for name in installed_configs() if name.startswith("mask_frozen_detr/")]


def _model(cfg: DictConfig) -> nn.Module:
    with torch.device("meta"):
        return instantiate(cfg.model)


def _shapes(cfg: DictConfig) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in _model(cfg).state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_saved_and_loaded_again_builds_the_same_model(name: str, tmp_path: Path) -> None:
    cfg = load_config(name)
    assert set(cfg) == {"model", "dataloader", "optimizer", "lr_multiplier", "train"}
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    again = load_config(tmp_path / "saved.yaml")
    assert not list(tmp_path.glob("*.pkl"))
    assert _shapes(again) == _shapes(cfg)


@pytest.mark.parametrize("name", CONFIGS)
def test_class_number_and_widths_stand_once(name: str) -> None:
    cfg = apply_overrides(
        load_config(name), ["model.num_classes=11", "model.detector.embed_dim=96"]
    )
    shapes = _shapes(cfg)
    assert shapes["mask_network.scoring.linears.2.weight"][0] == 11
    assert shapes["detector.class_heads.0.weight"] == (11, 96)
    assert shapes["mask_network.query_mapper.weight"][1] == 96


@pytest.mark.parametrize(
    ("name", "millions"),
    [("hdetr_r50", 3.26), ("dino_r50", 3.26), ("dino_focalnet_l", 3.24)],
)
def test_trainable_parameters_are_those_of_the_paper(name: str, millions: float) -> None:
    model = _model(load_config(f"mask_frozen_detr/mask_frozen_detr_{name}.py"))
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_to_start_from_are_published_or_made_here(name: str) -> None:
    path = load_config(name).train.init_checkpoint
    zoo = path.removeprefix("zoo://")
    assert path == "" or zoo in known_releases() or path == "output/hdetr_tiny/model_final.pth"
