"""Hooks: timing, writing, saving, schedules, evaluation, precise batch norm."""

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.engine import SimpleTrainer, hooks
from detectron2.solver import LRMultiplier
from detectron2.utils.events import EventWriter
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn


class Bias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.b - x).square().sum()}


def trainer_with(*given: Any) -> SimpleTrainer:
    def data() -> Iterator[torch.Tensor]:
        while True:
            yield torch.ones(1)

    model = Bias()
    trainer = SimpleTrainer(model, data(), torch.optim.SGD(model.parameters(), lr=0.5))
    trainer.register_hooks(list(given))
    return trainer


class Saver:
    """Stands in for a checkpointer."""

    path_manager = None

    def __init__(self) -> None:
        self.saved: list[tuple[str, dict[str, Any]]] = []

    def save(self, name: str, **extra: Any) -> None:
        self.saved.append((name, extra))


def test_callbacks_get_the_trainer_and_are_let_go() -> None:
    seen: list[tuple[str, int]] = []
    hook = hooks.CallbackHook(
        before_train=lambda trainer: seen.append(("start", trainer.iter)),
        after_step=lambda trainer: seen.append(("step", trainer.iter)),
        after_train=lambda trainer: seen.append(("end", trainer.iter)),
    )
    trainer_with(hook).train(0, 2)
    assert seen == [("start", 0), ("step", 0), ("step", 1), ("end", 2)]
    assert not [value for value in vars(hook).values() if callable(value)]


def test_the_timer_stores_steps_after_warm_up_and_logs_a_summary(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = trainer_with(hooks.IterationTimer(warmup_iter=3))
    with caplog.at_level(logging.INFO):
        trainer.train(0, 8)
    assert [at for _, at in trainer.storage.history("time").values()] == [2, 3, 4, 5, 6, 7]
    speed = r"Overall training speed: 6 iterations in 0:00:00 \(\d\.\d{4} s / it\)"
    assert re.search(speed, caplog.text)
    assert re.search(r"Total training time: 0:00:00 \(0:00:00 on hooks\)", caplog.text)


def test_writers_write_periodically_after_the_last_step_and_at_the_end() -> None:
    class Writer(EventWriter):
        def __init__(self) -> None:
            self.calls: list[int] = []

        def write(self) -> None:
            self.calls.append(trainer.iter)

        def close(self) -> None:
            self.calls.append(-1)

    writer = Writer()
    trainer = trainer_with(hooks.PeriodicWriter([writer], period=3))
    trainer.train(0, 8)
    assert writer.calls == [2, 5, 7, 8, -1]
    with pytest.raises(AssertionError):
        hooks.PeriodicWriter([print])


def test_checkpoints_are_saved_periodically_and_at_the_last_iteration() -> None:
    saver = Saver()
    trainer_with(hooks.PeriodicCheckpointer(saver, period=3)).train(0, 7)
    assert [name for name, _ in saver.saved] == ["model_0000002", "model_0000005", "model_final"]
    assert saver.saved[0][1] == {"iteration": 2}


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("max", [0.3, 0.4, 0.35, 0.5], [2, 5, 11]),
        ("min", [0.9, 0.8, 0.8, 0.7], [2, 5, 11]),
        ("max", [float("nan"), 0.2, 0.1, float("nan")], [5]),
    ],
)
def test_the_best_checkpoint_follows_the_metric(
    mode: str, values: list[float], best: list[int]
) -> None:
    saver, results = Saver(), iter(values)
    trainer_with(
        hooks.EvalHook(3, lambda: {"segm": {"AP": next(results)}}),
        hooks.BestCheckpointer(3, saver, "segm/AP", mode=mode),
    ).train(0, 12)
    # The last evaluation comes after training, at iteration 12.
    expected = [12 if iteration == 11 else iteration for iteration in best]
    assert [extra["iteration"] for _, extra in saver.saved] == expected
    assert {name for name, _ in saver.saved} == {"model_best"}


def test_a_metric_that_is_not_there_saves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    saver = Saver()
    trainer_with(hooks.BestCheckpointer(2, saver, "segm/AP")).train(0, 4)
    assert saver.saved == []
    assert "segm/AP" in caplog.text
    with pytest.raises(AssertionError):
        hooks.BestCheckpointer(2, saver, "segm/AP", mode="most")


@pytest.mark.parametrize(
    ("period", "iterations", "after", "expected"),
    [(3, 9, True, [2, 5, 9]), (3, 7, True, [2, 5, 7]), (0, 4, True, [4]), (2, 4, False, [1])],
)
def test_evaluation_comes_with_its_period_and_once_at_the_end(
    period: int, iterations: int, after: bool, expected: list[int]
) -> None:
    at: list[int] = []

    def evaluate() -> dict[str, Any]:
        at.append(trainer.iter)
        return {"bbox": {"AP": 1.5}, "speed": 2}

    trainer = trainer_with(hooks.EvalHook(period, evaluate, eval_after_train=after))
    trainer.train(0, iterations)
    assert at == expected
    assert trainer.storage.latest()["bbox/AP"] == (1.5, expected[-1])
    assert trainer.storage.smoothing_hints()["speed"] is False


def test_evaluation_is_left_out_after_a_failed_training() -> None:
    def fail(trainer: Any) -> None:
        raise ZeroDivisionError

    calls: list[int] = []
    trainer = trainer_with(
        hooks.EvalHook(0, lambda: calls.append(1)), hooks.CallbackHook(before_step=fail)
    )
    with pytest.raises(ZeroDivisionError):
        trainer.train(0, 4)
    assert calls == []


def test_evaluation_has_to_return_numbers() -> None:
    trainer = trainer_with(hooks.EvalHook(1, lambda: {"AP": "high"}))
    with pytest.raises(ValueError, match="AP"):
        trainer.train(0, 2)


def test_a_multiplier_becomes_a_schedule_and_the_rate_in_use_is_stored() -> None:
    hook = hooks.LRScheduler(scheduler=LinearParamScheduler(1.0, 0.0))
    trainer = trainer_with(hook)
    trainer.train(0, 4)
    rates = [value for value, _ in trainer.storage.history("lr").values()]
    assert rates == [0.5, 0.375, 0.25, 0.125]
    assert isinstance(hook.scheduler, LRMultiplier)
    assert hook.state_dict() == {"base_lrs": [0.5], "last_epoch": 4}
    hook.load_state_dict({"base_lrs": [0.5], "last_epoch": 2})
    assert hook.scheduler.last_epoch == 2


def test_a_schedule_may_come_from_the_trainer() -> None:
    trainer = trainer_with(hooks.LRScheduler())
    trainer.scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 1, gamma=0.1)
    trainer.train(0, 2)
    assert trainer.storage.latest()["lr"][0] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("sizes", "rates", "expected"),
    [([1, 3, 3], [1, 2, 3], 1), ([1, 1, 1, 1], [1, 2, 3, 2], 1), ([2], [1], 0)],
)
def test_the_stored_rate_is_that_of_the_largest_group_or_the_commonest(
    sizes: list[int], rates: list[float], expected: int
) -> None:
    groups = [
        {"params": [nn.Parameter(torch.zeros(1)) for _ in range(size)], "lr": rate}
        for size, rate in zip(sizes, rates)
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    assert hooks.LRScheduler.get_best_param_group_id(optimizer) == expected


def test_precise_batch_norm_takes_the_mean_over_the_batches() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    batches = torch.randn(8, 16, 2, dtype=torch.float64)
    model.double().train()
    trainer = trainer_with(hooks.PreciseBN(0, model, list(batches), num_iter=8))
    trainer.train(0, 2)
    assert torch.allclose(model[0].running_mean, batches.mean(dim=(0, 1)), rtol=1e-9)
    spread = batches.flatten(0, 1).var(dim=0, unbiased=False)
    assert torch.allclose(model[0].running_var, spread, rtol=0.02)


def test_precise_batch_norm_does_nothing_without_batch_norm() -> None:
    batches = iter([torch.ones(1)])
    hooks.PreciseBN(1, Bias(), batches, num_iter=1).update_stats()
    assert len(list(batches)) == 1  # none was used


def test_memory_statistics_need_cuda_only_when_it_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        trainer_with(hooks.TorchMemoryStats(period=1, max_runs=1)).train(0, 2)
    assert ("max_allocated_mem" in caplog.text) == torch.cuda.is_available()
