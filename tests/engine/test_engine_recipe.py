"""Parameter groups and the rescaling of a recipe."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from tiny_training import tiny_config
from torch import nn

from queryseg.engine import ConfigError, LazyTrainer, get_param_groups, scale_schedule
from queryseg.engine.config import find_config


class Parts(nn.Module):
    """One parameter of every kind that is treated differently."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "norm": nn.GroupNorm(1, 1)})
        self.decoder = nn.ModuleDict({"norm": nn.LayerNorm(2), "queries": nn.Embedding(2, 2)})
        self.meta_pos_embed = nn.Parameter(torch.zeros(1))
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.shared = self.backbone["conv"]


def treatment(model: nn.Module, **settings: Any) -> dict[str, tuple[float, float]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = get_param_groups(model, lr=1.0, weight_decay=0.05, **settings)
    listed = [parameter for group in groups for parameter in group["params"]]
    assert len(listed) == len(set(listed))
    assert len({(group["lr"], group["weight_decay"]) for group in groups}) == len(groups)
    return {
        names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]
    }


def test_the_official_recipe_of_fastinst_decays_biases_but_not_norms_and_embeddings() -> None:
    found = treatment(
        Parts(),
        lr_multipliers={"backbone": 0.1},
        weight_decay_norm=0.0,
        weight_decay_embed=0.0,
    )
    assert found == {
        "meta_pos_embed": (1.0, 0.05),
        "backbone.conv.weight": (0.1, 0.05),
        "backbone.conv.bias": (0.1, 0.05),
        "backbone.norm.weight": (0.1, 0.0),
        "backbone.norm.bias": (0.1, 0.0),
        "decoder.norm.weight": (1.0, 0.0),
        "decoder.norm.bias": (1.0, 0.0),
        "decoder.queries.weight": (1.0, 0.0),
    }


def test_without_settings_all_parameters_form_one_group() -> None:
    assert set(treatment(Parts()).values()) == {(1.0, 0.05)}


def test_the_longest_fitting_name_gives_the_multiplier_and_no_decay_wins() -> None:
    found = treatment(
        Parts(),
        lr_multipliers={"backbone": 0.1, "backbone.norm": 0.5},
        weight_decay_bias=0.01,
        no_decay=["meta_pos", "conv.bias"],
    )
    assert found["backbone.norm.weight"] == (0.5, 0.05)
    assert found["backbone.norm.bias"] == (0.5, 0.05)  # a norm's bias belongs to the norm
    assert found["backbone.conv.weight"] == (0.1, 0.05)
    assert found["backbone.conv.bias"] == (0.1, 0.0)
    assert found["meta_pos_embed"] == (1.0, 0.0)


def test_a_pattern_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"contains 'backbon_' .*: the top-level parts are back"):
        get_param_groups(Parts(), lr=1.0, weight_decay=0.0, lr_multipliers={"backbon_": 0.1})


def lr_curve(cfg: Any) -> list[float]:
    """Learning rate of every iteration as a fraction of the base rate."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = LazyTrainer.build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(cfg.train.max_iter):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def step_config(output_dir: Path) -> Any:
    multi_step = LazyConfig.load(str(find_config("common/schedule.py")), "multi_step")
    cfg = tiny_config(
        output_dir,
        max_iter=1000,
        total_batch_size=16,
        eval_period=100,
        checkpointer={"period": 50, "max_to_keep": 1},
    )
    cfg.lr_multiplier = multi_step(1000, (600, 800), warmup_iters=100, warmup_factor=0.1)
    return cfg


def test_the_schedule_warms_up_and_steps_where_the_recipe_says(tmp_path: Path) -> None:
    rates = lr_curve(step_config(tmp_path))
    assert rates[0] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.55)
    assert rates[100] == rates[599] == 1.0
    assert rates[601] == pytest.approx(0.1)
    assert rates[801] == pytest.approx(0.01)


@pytest.mark.parametrize("batch", [8, 32])
def test_rescaling_changes_everything_together(tmp_path: Path, batch: int) -> None:
    cfg = step_config(tmp_path)
    before = lr_curve(cfg)
    lr = cfg.optimizer.lr
    scale_schedule(cfg, batch)
    ratio = batch / 16
    assert cfg.optimizer.lr == pytest.approx(lr * ratio)
    assert cfg.optimizer.params.lr == cfg.optimizer.lr
    assert cfg.dataloader.train.total_batch_size == cfg.train.total_batch_size == batch
    assert cfg.train.max_iter == 1000 / ratio
    assert cfg.train.eval_period == 100 / ratio
    assert cfg.train.checkpointer.period == 50 / ratio
    after = lr_curve(cfg)
    for seen in (0.05, 0.3, 0.61, 0.79, 0.81):  # the same rate after the same number of images
        there, here = int(seen * len(before)), int(seen * len(after))
        assert after[here] == pytest.approx(before[there], abs=0.002)


def test_rescaling_to_the_recipes_own_batch_changes_nothing(tmp_path: Path) -> None:
    cfg = step_config(tmp_path)
    assert scale_schedule(cfg, 16) == step_config(tmp_path)
    assert scale_schedule(step_config(tmp_path), 7).train.eval_period == 229


def test_never_stays_never_and_a_batch_below_one_is_refused(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, eval_period=0)
    assert scale_schedule(cfg, 8).train.eval_period == 0
    with pytest.raises(ConfigError, match="at least 1: got 0"):
        scale_schedule(cfg, 0)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_shared_optimizers_build_with_a_model(name: str) -> None:
    node = LazyConfig.load(str(find_config("common/optim.py")), name)
    node.params.model = Parts()
    optimizer = instantiate(node)
    assert isinstance(optimizer, torch.optim.AdamW if name == "adamw" else torch.optim.SGD)
    assert len(optimizer.param_groups) == (4 if name == "adamw" else 2)


def test_the_shared_schedules_load_and_a_schedule_without_warm_up_starts_at_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cosine = LazyConfig.load(str(find_config("common/schedule.py")), "cosine")
    cfg = tiny_config(tmp_path, max_iter=100)
    cfg.lr_multiplier = cosine(100, end=0.2)
    rates = lr_curve(cfg)
    assert rates[0] == 1.0
    assert rates[50] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2, abs=1e-3)
