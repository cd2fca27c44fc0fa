"""The training loop: steps, order of hooks, metrics, states."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.engine.hooks import LRScheduler
from detectron2.utils.events import get_event_storage
from torch import nn


class Quadratic(nn.Module):
    """Losses 0.5 * (w - x)^2 and 2 * w, whose gradient is known."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, x: float) -> dict[str, torch.Tensor]:
        return {"fit": 0.5 * (self.w - x) ** 2, "pull": 2 * self.w}


def numbers(start: int = 0) -> Iterator[float]:
    while True:
        yield float(start)
        start += 1


def quadratic_trainer(**kwargs: Any) -> SimpleTrainer:
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return SimpleTrainer(model, numbers(), optimizer, **kwargs)


class Recorder(HookBase):
    def __init__(self, calls: list[tuple[str, int]]) -> None:
        self.calls = calls

    def note(self, name: str) -> None:
        assert self.trainer.storage.iter == self.trainer.iter
        self.calls.append((name, self.trainer.iter))

    def before_train(self) -> None:
        self.note("before_train")

    def before_step(self) -> None:
        self.note("before_step")

    def after_backward(self) -> None:
        self.note("after_backward")

    def after_step(self) -> None:
        self.note("after_step")

    def after_train(self) -> None:
        self.note("after_train")


@pytest.mark.parametrize("zero_grad_before_forward", [False, True])
def test_steps_are_those_of_gradient_descent(zero_grad_before_forward: bool) -> None:
    trainer = quadratic_trainer(zero_grad_before_forward=zero_grad_before_forward)
    trainer.train(0, 5)
    w, velocity, totals = 1.0, 0.0, []
    for x in range(5):
        totals.append(0.5 * (w - x) ** 2 + 2 * w)
        velocity = 0.9 * velocity + (w - x) + 2
        w -= 0.1 * velocity
    assert math.isclose(trainer.model.w.item(), w, rel_tol=1e-12)
    stored = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert stored == pytest.approx(totals, rel=1e-12)
    assert trainer.iter == 5


def test_hooks_are_called_in_order_around_each_step() -> None:
    calls: list[tuple[str, int]] = []
    trainer = quadratic_trainer()
    trainer.register_hooks([None, Recorder(calls)])
    trainer.train(3, 5)
    steps = [
        (name, iteration)
        for iteration in (3, 4)
        for name in ("before_step", "after_backward", "after_step")
    ]
    assert calls == [("before_train", 3), *steps, ("after_train", 5)]


def test_hooks_end_also_after_an_error() -> None:
    calls: list[tuple[str, int]] = []

    class Failing(TrainerBase):
        def run_step(self) -> None:
            if self.iter == 2:
                raise ZeroDivisionError

    trainer = Failing()
    trainer.register_hooks([Recorder(calls)])
    with pytest.raises(ZeroDivisionError):
        trainer.train(0, 5)
    assert calls[-2:] == [("before_step", 2), ("after_train", 2)]


def test_a_trainer_has_to_say_what_a_step_is() -> None:
    with pytest.raises(NotImplementedError):
        TrainerBase().train(0, 1)


def test_metrics_are_stored_with_their_period_and_their_names() -> None:
    trainer = quadratic_trainer(gather_metric_period=2)
    trainer.train(0, 5)
    assert [at for _, at in trainer.storage.history("total_loss").values()] == [1, 3]
    assert set(trainer.storage.latest()) == {
        "fit",
        "pull",
        "total_loss",
        "data_time",
        "rank_data_time",
    }


def test_a_single_loss_tensor_is_the_total() -> None:
    class Single(Quadratic):
        def forward(self, x: float) -> torch.Tensor:
            return (self.w - x) ** 2

    trainer = quadratic_trainer()
    trainer.model = Single()
    trainer.train(0, 1)
    assert trainer.storage.latest()["total_loss"] == (1.0, 0)
    assert "fit" not in trainer.storage.latest()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_training_before_the_step(value: float) -> None:
    trainer = quadratic_trainer()
    trainer.data_loader = iter([0.0, value])
    with pytest.raises(FloatingPointError, match="iteration=1"):
        trainer.train(0, 3)
    assert math.isfinite(trainer.model.w.item())


def test_a_model_in_evaluation_mode_is_not_trained() -> None:
    trainer = quadratic_trainer()
    assert trainer.model.training
    trainer.model.eval()
    with pytest.raises(AssertionError, match="eval mode"):
        trainer.train(0, 1)


def test_metrics_written_in_a_thread_are_all_there_at_the_end() -> None:
    trainer = quadratic_trainer(async_write_metrics=True)
    trainer.train(0, 20)
    history = trainer.storage.history("total_loss").values()
    assert [at for _, at in history] == list(range(20))


def test_a_new_loader_is_read_from_its_start() -> None:
    trainer = quadratic_trainer()
    trainer.train(0, 2)
    assert next(trainer._data_loader_iter) == 2.0
    trainer.reset_data_loader(lambda: numbers(10))
    assert next(trainer._data_loader_iter) == 10.0


def test_states_bring_optimizer_hooks_and_iteration_back() -> None:
    def build() -> SimpleTrainer:
        trainer = quadratic_trainer()
        schedule = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 2, gamma=0.5)
        trainer.register_hooks([LRScheduler(scheduler=schedule)])
        return trainer

    whole = build()
    whole.train(0, 7)
    first = build()
    first.train(0, 4)
    state = first.state_dict()
    assert state["iteration"] == 4 and set(state) == {"iteration", "hooks", "optimizer"}
    assert state["hooks"]["LRScheduler"]["last_epoch"] == 4

    second = build()
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(state)
    second.data_loader = numbers(4)
    assert second.iter == 4
    second.train(4, 7)
    assert second.model.w.item() == whole.model.w.item()


def test_the_state_of_a_hook_that_is_not_there_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    trainer = quadratic_trainer()
    state = trainer.state_dict()
    trainer.load_state_dict({**state, "iteration": 9, "hooks": {"Absent": {"a": 1}}})
    assert trainer.iter == 9
    assert "Absent" in caplog.text


def test_mixed_precision_trains_on_the_cpu_with_the_subset_only(detectron2_kind: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Flatten(0))
    seen = []

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = self.model(x)
            seen.append(y.dtype)
            return {"loss": y.float().square().mean()}

    loss = Loss()
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    trainer = AMPTrainer(
        loss, iter(lambda: torch.ones(2, 4), None), optimizer, precision=torch.bfloat16
    )
    if detectron2_kind == "real" and not torch.cuda.is_available():
        with pytest.raises(AssertionError, match="CUDA"):
            trainer.train(0, 1)
        return
    trainer.log_grad_scaler = True
    trainer.train(0, 3)
    assert seen == [torch.bfloat16] * 3
    losses = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert losses[2] < losses[0]
    assert trainer.storage.latest()["[metric]grad_scaler"][0] > 0
    assert "grad_scaler" in trainer.state_dict()


def test_a_default_trainer_steps_and_saves_through_the_trainer_inside() -> None:
    class Own(DefaultTrainer):
        def __init__(self) -> None:
            TrainerBase.__init__(self)
            self._trainer = quadratic_trainer()

    trainer = Own()
    TrainerBase.train(trainer, 0, 3)
    assert trainer._trainer.iter == 2 and trainer.iter == 3
    assert get_is_closed()
    assert trainer.model is trainer._trainer.model
    replaced = Quadratic()
    trainer.model = replaced
    assert trainer._trainer.model is replaced
    assert trainer.optimizer is trainer._trainer.optimizer
    assert trainer.data_loader is trainer._trainer.data_loader
    state = trainer.state_dict()
    assert set(state["_trainer"]) == {"iteration", "optimizer"}
    again = Own()
    again.load_state_dict(state)
    assert (again.iter, again._trainer.iter) == (3, 2)


def get_is_closed() -> bool:
    try:
        get_event_storage()
    except AssertionError:
        return True
    return False
