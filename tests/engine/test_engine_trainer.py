"""What `LazyTrainer` builds, does in a step, and leaves behind."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from tiny_training import FakeEvaluator, FakeMapper, TinyModel, fake_dicts, tiny_config

from queryseg.checkpoint import Checkpointer
from queryseg.engine import ConfigError, LazyTrainer
from queryseg.engine.checkpoints import BestCheckpoint


def trained(cfg: Any) -> LazyTrainer:
    trainer = LazyTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.state_dict().values()])


def test_nothing_of_default_trainer_but_its_name_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("DefaultTrainer's own code was reached")

    own = [name for name in vars(DefaultTrainer) if not name.startswith("__")] + ["__init__"]
    assert not [name for name in own if name not in vars(LazyTrainer)]
    for name in own:
        monkeypatch.setattr(DefaultTrainer, name, forbidden)
    settings = {"eval_period": 2, "checkpointer": {"period": 2, "max_to_keep": 1}}
    trainer = trained(tiny_config(tmp_path, ema={"enabled": True}, **settings))
    assert isinstance(trainer, DefaultTrainer)
    assert trainer.results is not None
    resumed = LazyTrainer(tiny_config(tmp_path, max_iter=8, **settings))
    resumed.resume_or_load(resume=True)
    resumed.train()
    assert resumed.iter == 8


def test_a_step_equals_the_plain_loop_written_out(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, max_iter=5)
    model = copy.deepcopy(LazyTrainer(cfg).model)
    trainer = trained(cfg)

    head = [p for name, p in model.named_parameters() if not name.startswith("backbone")]
    optimizer = torch.optim.AdamW(
        [{"params": model.backbone.parameters(), "lr": 0.001}, {"params": head, "lr": 0.01}],
        weight_decay=0.05,
    )
    schedule = trainer.build_lr_scheduler(cfg, optimizer)
    batches = iter(trainer.build_train_loader(cfg))
    for _ in range(5):
        optimizer.zero_grad()
        sum(model(next(batches)).values()).backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(weights(trainer.model), weights(model), rtol=0, atol=0)


def test_accumulated_parts_give_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    def gradient(accumulate: int) -> torch.Tensor:
        cfg = tiny_config(tmp_path, total_batch_size=8, max_iter=1, accumulate=accumulate)
        trainer = trained(cfg)
        return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])

    whole, parts = gradient(accumulate=1), gradient(accumulate=4)
    # Means over equal parts; measured 1.3e-7, the float32 noise of the order of summation.
    assert (parts - whole).norm() <= 1e-6 * whole.norm()
    with pytest.raises(ValueError, match="does not divide the 8 images"):
        trained(tiny_config(tmp_path / "no", total_batch_size=8, accumulate=3))


def test_bfloat16_on_the_cpu_stays_near_float32(tmp_path: Path) -> None:
    losses = {}
    for name, amp in (("full", {}), ("amp", {"enabled": True, "dtype": "bfloat16"})):
        trained(tiny_config(tmp_path / name, max_iter=20, log_period=20, amp=amp))
        lines = (tmp_path / name / "metrics.json").read_text().splitlines()
        losses[name] = json.loads(lines[0])["total_loss"]
    assert losses["amp"] != losses["full"]
    assert losses["amp"] == pytest.approx(losses["full"], rel=0.05)


def test_float16_lowers_its_scale_and_skips_the_step_when_gradients_overflow(
    tmp_path: Path,
) -> None:
    settings = {"amp": {"enabled": True, "dtype": "fp16"}, "max_iter": 1}
    cfg = tiny_config(tmp_path, "model.gain=2000.0", **settings)
    before = weights(LazyTrainer(cfg).model)
    trainer = trained(cfg)
    assert trainer.state_dict()["_trainer"]["grad_scaler"]["scale"] == 2.0**15
    torch.testing.assert_close(weights(trainer.model), before, rtol=0, atol=0)


def test_gradients_are_clipped_together_or_each_by_itself(tmp_path: Path) -> None:
    class Norms(HookBase):
        def after_step(self) -> None:
            grads = [p.grad for p in self.trainer.model.parameters()]
            self.each = torch.stack([g.norm() for g in grads])

    def norms(**clip: Any) -> torch.Tensor:
        trainer = LazyTrainer(tiny_config(tmp_path, max_iter=1, clip_grad=clip))
        hook = Norms()
        trainer.register_hooks([hook])
        trainer.train()
        return hook.each

    free = norms(enabled=False)
    assert free.norm() > 0.5
    full = norms(enabled=True, mode="full", max_norm=0.5)
    torch.testing.assert_close(full, free * 0.5 / free.norm(), rtol=1e-4, atol=0)
    each = norms(enabled=True, mode="per_parameter", max_norm=0.5)
    assert (free > 0.5).any() and (free < 0.5).any()
    torch.testing.assert_close(each, free.clamp(max=0.5), rtol=1e-4, atol=0)


def test_clipping_sees_gradients_without_the_loss_scale(tmp_path: Path) -> None:
    settings = {"amp": {"enabled": True, "dtype": "float16"}, "max_iter": 12}
    trainer = trained(
        tiny_config(tmp_path, clip_grad={"enabled": True, "max_norm": 0.5}, **settings)
    )
    norm = torch.stack([p.grad.norm() for p in trainer.model.parameters()]).norm()
    assert norm == pytest.approx(0.5, rel=1e-4)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert 0.5 < lines[0]["grad_norm"] < 50


def test_the_average_follows_its_formula_and_is_what_checkpoints_hold(tmp_path: Path) -> None:
    class History(HookBase):
        def __init__(self) -> None:
            self.states: list[torch.Tensor] = []

        def after_step(self) -> None:
            self.states.append(weights(self.trainer.model).clone())

    cfg = tiny_config(tmp_path, ema={"enabled": True, "decay": 0.3}, max_iter=6)
    trainer = LazyTrainer(cfg)
    average = weights(trainer.model).double()
    history = History()
    trainer.register_hooks([history])
    trainer.train()
    for step, state in enumerate(history.states):
        decay = min(0.3, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * state.double()
    published = TinyModel()
    Checkpointer(published).load(tmp_path / "model_final.pth")
    torch.testing.assert_close(weights(published).double(), average, rtol=0, atol=1e-6)
    torch.testing.assert_close(weights(trainer.model), history.states[-1], rtol=0, atol=0)
    assert (average - history.states[-1]).abs().max() > 1e-4


def test_a_loss_that_is_not_finite_names_iteration_term_and_images(tmp_path: Path) -> None:
    cfg = tiny_config(
        tmp_path,
        "dataloader.train.mapper.broken_image=105",
        total_batch_size=2,
        max_iter=50,
        checkpointer={"period": 1, "max_to_keep": 2},
    )
    trainer = LazyTrainer(cfg)
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    message = str(caught.value)
    assert f"iteration {trainer.iter}: loss_ce is nan" in message
    assert "105 (image_5.png)" in message
    assert "model_final" not in message
    assert trainer.iter > 0
    last = tmp_path / f"model_{trainer.iter - 1:07d}.pth"
    assert str(last) in message
    good = TinyModel()
    Checkpointer(good).load(last)
    torch.testing.assert_close(weights(good), weights(trainer.model), rtol=0, atol=0)
    assert weights(good).isfinite().all()
    assert not (tmp_path / "results.json").exists()


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(
    tmp_path: Path,
) -> None:
    trainer = LazyTrainer(tiny_config(tmp_path))
    before = weights(trainer.model).clone()
    trainer.model.class_embed.weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(FloatingPointError, match=r"not the gradients of class_embed.weight"):
        trainer.train()
    torch.testing.assert_close(weights(trainer.model), before, rtol=0, atol=0)


class ScriptedTrainer(LazyTrainer):
    """Evaluates to a given sequence of figures."""

    values: list[float]

    @classmethod
    def test(cls, cfg: Any, model: Any, evaluators: Any = None) -> Any:
        return {"segm": {"AP": cls.values.pop(0)}}


@pytest.mark.parametrize(("mode", "best_iter", "best"), [("max", 4, 30.0), ("min", 6, 5.0)])
def test_the_best_checkpoint_holds_the_weights_of_the_best_evaluation(
    tmp_path: Path, mode: str, best_iter: int, best: float
) -> None:
    ScriptedTrainer.values = [float("nan"), 10.0, float("nan"), 20.0, 30.0, 30.0, 5.0, 25.0]
    cfg = tiny_config(
        tmp_path, eval_period=1, max_iter=8, best_checkpoint={"metric": "segm/AP", "mode": mode}
    )
    trainer = ScriptedTrainer(cfg)
    trainer.train()
    file = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert file["iteration"] == best_iter
    assert "trainer" not in file
    record = json.loads((tmp_path / "model_best.json").read_text())
    assert record == {"metric": "segm/AP", "value": best, "iteration": best_iter}
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_a_resumed_run_does_not_replace_a_better_checkpoint(tmp_path: Path) -> None:
    ScriptedTrainer.values = [50.0, 10.0, 20.0, 30.0]
    cfg = tiny_config(tmp_path, eval_period=2, max_iter=4)
    ScriptedTrainer(cfg).train()
    again = ScriptedTrainer(tiny_config(tmp_path, eval_period=2, max_iter=8))
    again.resume_or_load(resume=True)
    again.train()
    assert json.loads((tmp_path / "model_best.json").read_text())["value"] == 50.0
    assert torch.load(tmp_path / "model_best.pth", weights_only=True)["iteration"] == 1


def test_a_metric_that_does_not_exist_is_reported_with_those_that_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tiny_config(tmp_path, best_checkpoint={"metric": "segm/APx", "mode": "max"}))
    assert "'segm/APx'" in caplog.text
    assert "segm/AP, segm/AP50" in caplog.text


def test_an_evaluation_without_figures_has_no_best_checkpoint_and_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved: list[str] = []
    best = BestCheckpoint(saved.append, str(tmp_path), metric="vis/AP", mode="max")
    best.update({}, 3)  # of a set whose annotations only a server has
    assert not saved and not caplog.text
    best.update({"vis/AP": 1.0}, 4)
    assert saved == ["model_best"]


def test_a_run_leaves_results_metrics_curves_and_weights(tmp_path: Path) -> None:
    trainer = trained(tiny_config(tmp_path, eval_period=3, log_period=2))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["segm"]["AP"] == trainer.results["segm"]["AP"]
    assert results["segm"]["AP50"] is None  # NaN is not JSON
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert {"total_loss", "loss_ce", "loss_size", "lr", "grad_norm", "data_time"} <= set(lines[0])
    assert any(line.get("segm/AP") is not None for line in lines)
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert (tmp_path / "model_final.pth").is_file()


def test_evaluation_sees_every_image_once_in_eval_mode_and_training_goes_on_in_train_mode(
    tmp_path: Path,
) -> None:
    cfg = tiny_config(tmp_path, max_iter=40)
    trainer = trained(cfg)
    assert trainer.model.training
    model = trainer.checkpointer.model.eval()
    mapper = FakeMapper(is_train=False)
    right = [model([mapper(record)])[0]["class"] == record["label"] for record in fake_dicts(num=6)]
    assert trainer.results["segm"]["AP"] == pytest.approx(100 * sum(right) / 6)


def test_test_takes_evaluators_and_other_datasets_can_be_named(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    model = LazyTrainer.build_model(cfg)
    given = FakeEvaluator("given")
    results = LazyTrainer.test(cfg, model, given)
    assert len(given.right) == 6
    assert set(results) == {"segm"}
    assert LazyTrainer.build_evaluator(cfg, "other").dataset_name == "other"
    assert cfg.dataloader.evaluator.dataset_name == "fake"
    assert LazyTrainer.auto_scale_workers(cfg, 8) is cfg


def test_a_config_without_an_evaluator_trains_and_writes_no_results(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, eval_period=2)
    del cfg.dataloader["evaluator"]
    assert trained(cfg).results is None
    assert not (tmp_path / "results.json").exists()


def test_a_loader_without_a_start_is_trained_on_and_resuming_says_what_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class ListTrainer(LazyTrainer):
        @classmethod
        def build_train_loader(cls, cfg: Any) -> Any:
            return [[FakeMapper()(record) for record in fake_dicts(num=4)]] * 20

    trained_once = ListTrainer(tiny_config(tmp_path))
    trained_once.train()
    resumed = ListTrainer(tiny_config(tmp_path, max_iter=8))
    resumed.resume_or_load(resume=True)
    resumed.train()
    assert resumed.iter == 8
    assert "its order starts anew" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"amp": {"enabled": True, "dtype": "int8"}}, "train.amp.dtype is 'int8'"),
        ({"accumulate": 0}, "train.accumulate is 0"),
        ({"clip_grad": {"enabled": True, "mode": "half"}}, "train.clip_grad.mode is 'half'"),
        ({"clip_grad": {"enabled": True, "max_norm": 0.0}}, "max_norm is 0.0"),
        ({"ema": {"enabled": True, "decay": 1.0}}, "train.ema.decay is 1.0"),
        ({"checkpointer": {"max_to_keep": 0}}, "max_to_keep is 0"),
        ({"best_checkpoint": {"mode": "most"}}, "train.best_checkpoint.mode is 'most'"),
        ({"device": "gpu"}, "train.device is 'gpu': use auto, cpu or cuda"),
        ({"seed": -1}, "train.seed is -1"),
        ({"max_iter": 0}, "train.max_iter is 0: it must be at least 1"),
        ({"max_iter": -1}, "train.max_iter is -1"),
        ({"accumulate": 3}, "train.accumulate=3 does not divide the 4 images"),
    ],
)
def test_an_impossible_setting_is_named_with_its_cure(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LazyTrainer(tiny_config(tmp_path, **changes))


@pytest.mark.parametrize("part", ["evaluator", "test"])
def test_data_that_cannot_be_evaluated_on_stop_a_training_before_its_first_step(
    tmp_path: Path, part: str
) -> None:
    class NothingToEvaluate(LazyTrainer):
        @classmethod
        def build_evaluator(cls, cfg: Any, dataset_name: str | None = None) -> Any:
            return broken() if part == "evaluator" else super().build_evaluator(cfg)

        @classmethod
        def build_test_loader(cls, cfg: Any, dataset_name: str | None = None) -> Any:
            return broken() if part == "test" else super().build_test_loader(cfg)

    def broken() -> Any:
        raise ValueError("val.json cannot be used")

    trainer = NothingToEvaluate(tiny_config(tmp_path))
    before = weights(trainer.model)
    with pytest.raises(ValueError, match=r"val\.json cannot be used"):
        trainer.train()
    assert torch.equal(weights(trainer.model), before)
    assert not list(tmp_path.glob("*.pth"))


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    del cfg["optimizer"]
    with pytest.raises(ConfigError, match="has no optimizer"):
        LazyTrainer(cfg)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_asking_for_a_missing_gpu_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set train\.device=auto"):
        LazyTrainer(tiny_config(tmp_path, device="cuda"))


def test_another_batch_than_the_recipes_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "queryseg")
    LazyTrainer(tiny_config(tmp_path))
    assert "batches of" not in caplog.text
    LazyTrainer(tiny_config(tmp_path, "dataloader.train.total_batch_size=2"))
    assert "written for batches of 4 images and this run uses 2" in caplog.text
    assert "--batch-size 2" in caplog.text


def test_hooks_run_through_the_base_classes_loop(tmp_path: Path) -> None:
    calls = []

    class Spy(HookBase):
        def after_backward(self) -> None:
            calls.append("after_backward")
            assert all(p.grad is not None for p in self.trainer.model.parameters())

        def after_step(self) -> None:
            calls.append("after_step")

    trainer = LazyTrainer(tiny_config(tmp_path, max_iter=2))
    trainer.register_hooks([Spy()])
    trainer.train()
    assert isinstance(trainer, TrainerBase)
    assert calls == ["after_backward", "after_step"] * 2
