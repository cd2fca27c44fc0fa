"""Every SOIT config loads, survives saving, and states its numbers once."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig

from queryseg.engine import apply_overrides, load_config
from queryseg.engine.config import installed_configs

CONFIGS = [name for name in installed_configs() if name.startswith("soit/")]
SECTIONS = {"model", "dataloader", "optimizer", "lr_multiplier", "train"}


def _shapes(cfg: DictConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = instantiate(cfg.model)
    return {name: value.shape for name, value in model.state_dict().items()}


def test_all_four_models_have_a_config() -> None:
    names = {f"soit/soit_{tag}.py" for tag in ("r50_50ep", "r101_50ep", "swin_l_50ep", "tiny")}
    assert set(CONFIGS) == names


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
        "model.queries.num_queries": 37,
        "model.queries.kind": "learned",
        "model.decoder.embed_dim": 96,
        "model.mask_branch.encoder.mask_channels": 16,
        "model.mask_branch.transformer.num_heads": 2,
    }
    overrides = [f"{key}={value}" for key, value in numbers.items()]
    shapes = _shapes(apply_overrides(load_config(name), overrides))
    assert shapes["queries.queries.embed.weight"] == (37, 192)
    assert shapes["class_heads.0.weight"] == (11, 96)
    assert shapes["tokens.level_embed"][1] == 96
    assert shapes["encoder.layers.0.norm.weight"] == (96,)
    assert shapes["mask_branch.encoder.projection.weight"] == (16, 96)
    assert shapes["mask_branch.heads.0.layers.2.weight"] == (3 * 2 * 4 * 17 + 17, 96)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_holds_its_five_sections_and_nothing_else(name: str) -> None:
    assert set(load_config(name)) == SECTIONS


def test_recipe_is_that_of_the_release() -> None:
    cfg = load_config("soit/soit_r50_50ep.py")
    cfg.model.backbone.stem.norm = "FrozenBN"
    with torch.device("meta"):
        model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    groups = instantiate(cfg.optimizer.params)
    counts = {group["lr"]: len(group["params"]) for group in groups}
    assert counts == pytest.approx({2e-5: 68, 2e-4: 305})
    assert {group["weight_decay"] for group in groups} == {1e-4}
    images = 118_287
    assert cfg.train.max_iter == pytest.approx(50 * images / cfg.train.total_batch_size, abs=2)
    schedule = instantiate(cfg.lr_multiplier)
    assert [schedule(share) for share in (0.0, 0.79, 0.81, 0.999)] == [1.0, 1.0, 0.1, 0.1]


def test_reference_points_of_learned_queries_learn_as_slowly_as_the_backbone() -> None:
    readme = Path(__file__).parents[3] / "projects" / "soit" / "README.md"
    row = next(row for row in readme.read_text().splitlines() if "queries.kind=learned" in row)
    overrides = row.split("`")[1].split()
    cfg = apply_overrides(load_config("soit/soit_r50_50ep.py"), overrides)
    with torch.device("meta"):
        model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    rates = {p: group["lr"] for group in instantiate(cfg.optimizer.params) for p in group["params"]}
    points = model.queries.queries.reference_points
    assert rates[points.weight] == rates[points.bias] == pytest.approx(2e-5)
    assert rates[model.queries.queries.embed.weight] == pytest.approx(2e-4)
