"""A training that was stopped and resumed equals one that was not, to the last bit."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase
from tiny_training import tiny_config

from queryseg.engine import LazyTrainer

RANDOM_MODEL = ("model.dropout=0.3", "model.norm=True", "model.noise=0.5")
LONG = {
    "max_iter": 12,
    "eval_period": 2,
    "checkpointer": {"period": 5, "max_to_keep": 2},
    "ema": {"enabled": True, "decay": 0.9},
}


class Watch(HookBase):
    """Keeps the losses of every iteration and ends the training before one of them."""

    def __init__(self, crash_at: int | None) -> None:
        self.crash_at = crash_at
        self.losses: dict[int, float] = {}

    def before_step(self) -> None:
        if self.trainer.iter == self.crash_at:
            raise KeyboardInterrupt

    def after_step(self) -> None:
        self.losses[self.trainer.iter] = self.trainer.storage.latest()["total_loss"][0]


def trained(cfg: Any, *, resume: bool = False, crash_at: int | None = None) -> LazyTrainer:
    trainer = LazyTrainer(cfg)
    trainer.resume_or_load(resume)
    trainer.watch = Watch(crash_at)
    trainer.register_hooks([trainer.watch])
    if crash_at is None:
        trainer.train()
        return trainer
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    return trainer


def tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor and number of a nested state by its path."""
    if isinstance(value, dict):
        parts = [tensors(inner, f"{name}/{key}") for key, inner in value.items()]
    elif isinstance(value, list | tuple):
        parts = [tensors(inner, f"{name}/{key}") for key, inner in enumerate(value)]
    elif isinstance(value, torch.Tensor | bool | int | float):
        return {name: torch.as_tensor(value)}
    else:
        return {}
    return {key: tensor for part in parts for key, tensor in part.items()}


def final_state(output_dir: Path) -> dict[str, torch.Tensor]:
    return tensors(torch.load(output_dir / "model_final.pth", weights_only=True))


def assert_equal_states(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def test_resuming_equals_an_uninterrupted_run_in_every_stored_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = (*RANDOM_MODEL, "dataloader.train.num_workers=2", "train.clip_grad.enabled=True")
    whole = tiny_config(tmp_path / "whole", *overrides, **LONG)
    broken = tiny_config(tmp_path / "broken", *overrides, **LONG)
    uninterrupted = trained(whole).watch.losses
    until_crash = trained(broken, crash_at=7).watch.losses
    after_crash = trained(broken, resume=True).watch.losses
    assert list(after_crash) == list(range(5, 12))
    state = final_state(tmp_path / "whole")
    assert_equal_states(state, final_state(tmp_path / "broken"))
    stored = " ".join(state)
    for part in ("EMAHook/weights", "exp_avg_sq", "LRScheduler/last_epoch", "random_states"):
        assert part in stored, part
    assert until_crash | after_crash == uninterrupted
    assert "exact continuation" not in caplog.text


def test_the_number_of_workers_does_not_change_a_training(tmp_path: Path) -> None:
    for num_workers in (0, 2):
        output_dir = tmp_path / str(num_workers)
        override = f"dataloader.train.num_workers={num_workers}"
        trained(tiny_config(output_dir, *RANDOM_MODEL, override))
    assert_equal_states(final_state(tmp_path / "0"), final_state(tmp_path / "2"))


def test_the_same_seed_twice_gives_the_same_losses_and_another_seed_does_not(
    tmp_path: Path,
) -> None:
    first, second, other = (
        trained(tiny_config(tmp_path / name, *RANDOM_MODEL, seed=seed, max_iter=20)).watch.losses
        for name, seed in (("first", 3), ("second", 3), ("other", 4))
    )
    assert len(first) == 20
    assert first == second
    assert first != other


def test_evaluating_more_often_does_not_change_the_training(tmp_path: Path) -> None:
    for period in (0, 1):
        trained(tiny_config(tmp_path / str(period), *RANDOM_MODEL, eval_period=period))
    assert_equal_states(final_state(tmp_path / "0"), final_state(tmp_path / "1"))


def test_the_loss_scale_of_float16_survives_a_resume(tmp_path: Path) -> None:
    settings = LONG | {"amp": {"enabled": True, "dtype": "float16"}}
    trained(tiny_config(tmp_path / "whole", *RANDOM_MODEL, **settings))
    broken = tiny_config(tmp_path / "broken", *RANDOM_MODEL, **settings)
    trained(broken, crash_at=6)
    trained(broken, resume=True)
    state = final_state(tmp_path / "whole")
    assert state["/trainer/_trainer/grad_scaler/scale"] != 2.0**16  # it has moved from its start
    assert state["/trainer/_trainer/grad_scaler/_growth_tracker"] > 0
    assert_equal_states(state, final_state(tmp_path / "broken"))


def test_a_save_that_is_cut_off_leaves_the_older_checkpoint_to_resume_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny_config(tmp_path, checkpointer={"period": 2, "max_to_keep": 3}, max_iter=8)
    real_save = torch.save

    def cut_off(data: Any, file: Any) -> None:
        if data["trainer"]["iteration"] == 3:
            file.write(b"half a file")
            raise KeyboardInterrupt
        real_save(data, file)

    monkeypatch.setattr(torch, "save", cut_off)
    trainer = LazyTrainer(cfg)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    monkeypatch.undo()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    assert not list(tmp_path.glob("model_0000003*"))
    assert trained(cfg, resume=True).start_iter == 2


def test_only_the_newest_periodic_checkpoints_are_kept_also_after_a_resume(tmp_path: Path) -> None:
    settings = {"max_iter": 9, "checkpointer": {"period": 2, "max_to_keep": 2}}
    trained(tiny_config(tmp_path, **settings), crash_at=5)
    trained(tiny_config(tmp_path, **settings), resume=True)
    kept = sorted(path.name for path in tmp_path.glob("model_0*"))
    assert kept == ["model_0000005.pth", "model_0000007.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_resuming_with_other_data_warns_and_without_a_checkpoint_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "queryseg")
    assert trained(tiny_config(tmp_path), resume=True).start_iter == 0
    assert "Nothing to resume" in caplog.text
    trained(tiny_config(tmp_path, "dataloader.train.dataset.num=9", max_iter=7), resume=True)
    assert "Resumed from" in caplog.text
    assert "going on with iteration 6" in caplog.text
    assert "not an exact continuation" in caplog.text


def test_a_fresh_start_in_the_folder_of_another_run_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tiny_config(tmp_path))
    assert trained(tiny_config(tmp_path)).start_iter == 0
    assert "--resume continues it" in caplog.text
