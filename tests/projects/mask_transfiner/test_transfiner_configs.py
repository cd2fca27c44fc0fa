"""Every Mask Transfiner config loads, survives saving, and states its numbers once."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig

from queryseg.engine import apply_overrides, load_config
from queryseg.engine.config import installed_configs

CONFIGS = [name for name in installed_configs() if name.startswith("mask_transfiner/")]


def _shapes(cfg: DictConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = instantiate(cfg.model)
    return {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_saved_and_loaded_again_builds_the_same_model(name: str, tmp_path: Path) -> None:
    cfg = load_config(name)
    assert set(cfg) == {"model", "dataloader", "optimizer", "lr_multiplier", "train"}
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    again = load_config(tmp_path / "saved.yaml")
    assert not list(tmp_path.glob("*.pkl"))
    assert _shapes(again) == _shapes(cfg)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_number_of_classes_stands_once(name: str) -> None:
    shapes = _shapes(apply_overrides(load_config(name), ["model.num_classes=11"]))
    predictors = [s for n, s in shapes.items() if n.endswith("coarse_head.predictor.weight")]
    assert [shape[0] for shape in predictors] == [11]
    scores = [s for n, s in shapes.items() if n.endswith("box_predictor.cls_score.weight")]
    assert [shape[0] for shape in scores] in ([12], [])


def test_all_models_of_the_release_have_its_number_of_parameters() -> None:
    parameters = {"r50_1x": 53174836, "r50_dcn_3x": 53755678, "r101_3x": 72114740}
    for name, expected in parameters.items():
        with torch.device("meta"):
            model = instantiate(load_config(f"mask_transfiner/mask_transfiner_{name}.py").model)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected
