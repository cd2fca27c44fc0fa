"""What happens around the steps of training: times, writing, saving, schedules, evaluation."""

import datetime
import itertools
import logging
import math
import operator
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as FvcorePeriodicCheckpointer
from fvcore.common.param_scheduler import ParamScheduler
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as TorchLRScheduler

from detectron2._subset import outside
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter

__all__ = [
    "BestCheckpointer",
    "CallbackHook",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "TorchMemoryStats",
]

__getattr__ = outside(__name__, "AutogradProfiler", "TorchProfiler")

TrainerCallback = Callable[[TrainerBase], object]


class CallbackHook(HookBase):
    """Calls functions of the trainer."""

    def __init__(
        self,
        *,
        before_train: TrainerCallback | None = None,
        after_train: TrainerCallback | None = None,
        before_step: TrainerCallback | None = None,
        after_step: TrainerCallback | None = None,
    ) -> None:
        """Keep the functions; each takes the trainer."""
        self._callbacks = {
            "before_train": before_train,
            "after_train": after_train,
            "before_step": before_step,
            "after_step": after_step,
        }

    def _call(self, name: str) -> None:
        callback = self._callbacks.get(name)
        if callback is not None:
            callback(self.trainer)

    def before_train(self) -> None:
        """Call the function of that name."""
        self._call("before_train")

    def before_step(self) -> None:
        """Call the function of that name."""
        self._call("before_step")

    def after_step(self) -> None:
        """Call the function of that name."""
        self._call("after_step")

    def after_train(self) -> None:
        """Call the function of that name, then let go of all: they may hold the trainer."""
        self._call("after_train")
        self._callbacks.clear()


class IterationTimer(HookBase):
    """Puts the seconds of every step into the storage as "time" and logs a summary at the end.

    It counts from its `before_step` to its `after_step`, so it should be the first hook.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        """Leave out the first `warmup_iter` iterations."""
        self._warmup_iter = warmup_iter
        self._began = 0.0
        self._step_began = 0.0
        self._seconds_in_steps = 0.0

    def before_train(self) -> None:
        """Start the clock."""
        self._began = time.perf_counter()
        self._seconds_in_steps = 0.0

    def before_step(self) -> None:
        """Start the step's clock."""
        self._step_began = time.perf_counter()

    def after_step(self) -> None:
        """Store the step's time; during warm-up, start the summary anew."""
        now = time.perf_counter()
        if self.trainer.storage.iter - self.trainer.start_iter + 1 < self._warmup_iter:
            self._began = now
            return
        self._seconds_in_steps += now - self._step_began
        self.trainer.storage.put_scalar("time", now - self._step_began)

    def after_train(self) -> None:
        """Log the speed and the time spent on hooks (scripts grep these lines)."""
        logger = logging.getLogger(__name__)
        total, in_steps = time.perf_counter() - self._began, self._seconds_in_steps
        steps = self.trainer.storage.iter + 1 - self.trainer.start_iter - self._warmup_iter
        if steps > 0 and in_steps > 0:
            logger.info(
                f"Overall training speed: {steps} iterations in {_clock(in_steps)} "
                f"({in_steps / steps:.4f} s / it)"
            )
        logger.info(f"Total training time: {_clock(total)} ({_clock(total - in_steps)} on hooks)")


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))


def _is_due(trainer: TrainerBase, period: int) -> bool:
    """Whether an iteration that is a multiple of `period`, and not the last, has just ended."""
    done = trainer.iter + 1
    return period > 0 and done % period == 0 and done != trainer.max_iter


def _is_complete(trainer: TrainerBase) -> bool:
    return trainer.iter + 1 >= trainer.max_iter


class PeriodicWriter(HookBase):
    """Lets event writers write every `period` iterations, after the last one and at the end."""

    def __init__(self, writers: Sequence[EventWriter], period: int = 20) -> None:
        """Keep the writers."""
        for writer in writers:
            assert isinstance(writer, EventWriter), writer
        self._writers = writers
        self._period = period

    def after_step(self) -> None:
        """Write if it is time."""
        if (self.trainer.iter + 1) % self._period == 0 or _is_complete(self.trainer):
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        """Write what other hooks left at the end, then close."""
        for writer in self._writers:
            writer.write()
            writer.close()


class PeriodicCheckpointer(FvcorePeriodicCheckpointer, HookBase):
    """fvcore's `PeriodicCheckpointer` as a hook: saves every `period` iterations and the last."""

    def before_train(self) -> None:
        """Learn the last iteration."""
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        """Save if it is time."""
        self.step(self.trainer.iter)


class BestCheckpointer(HookBase):
    """Saves the model when a metric is better than ever; belongs after the `EvalHook`."""

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        """Watch a metric.

        Args:
            eval_period: period of the `EvalHook`.
            checkpointer: saves the model.
            val_metric: name of the metric in the storage, such as "segm/AP".
            mode: "max" or "min": what is better.
            file_prefix: name of the checkpoint.
        """
        assert mode in ("max", "min"), f"mode has to be 'max' or 'min', got {mode!r}."
        self._period = eval_period
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._is_better = operator.gt if mode == "max" else operator.lt
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def after_step(self) -> None:
        """Compare when the `EvalHook` has evaluated."""
        if _is_due(self.trainer, self._period):
            self._compare()

    def after_train(self) -> None:
        """Compare when the `EvalHook` has evaluated."""
        if _is_complete(self.trainer):
            self._compare()

    def _compare(self) -> None:
        logger = logging.getLogger(__name__)
        latest = self.trainer.storage.latest().get(self._val_metric)
        if latest is None:
            logger.warning("No metric %s was stored: no best checkpoint.", self._val_metric)
            return
        value, iteration = latest
        best = self.best_metric
        if math.isfinite(value) and (best is None or self._is_better(value, best)):
            self.best_metric, self.best_iter = value, iteration
            self._checkpointer.save(self._file_prefix, iteration=iteration)
            logger.info(
                f"Saved {self._file_prefix}: {self._val_metric} {value:.5f} at iteration "
                f"{iteration}" + ("" if best is None else f", {best:.5f} before")
            )
        elif best is not None:
            logger.info(
                f"{self._val_metric} {value:.5f} is not better than {best:.5f} of iteration "
                f"{self.best_iter}: not saved"
            )


class LRScheduler(HookBase):
    """Stores the learning rate as "lr" and steps the schedule after every iteration."""

    def __init__(
        self,
        optimizer: Optimizer | None = None,
        scheduler: TorchLRScheduler | ParamScheduler | None = None,
    ) -> None:
        """Take optimizer and schedule from the trainer unless given.

        A fvcore `ParamScheduler` multiplies the optimizer's learning rates.
        """
        self._optimizer = optimizer
        self._scheduler = scheduler

    @property
    def scheduler(self) -> Any:
        """The schedule in use."""
        return self._scheduler or self.trainer.scheduler

    def before_train(self) -> None:
        """Bind the schedule to the optimizer and choose the group to store."""
        self._optimizer = self._optimizer or self.trainer.optimizer
        if isinstance(self.scheduler, ParamScheduler):
            self._scheduler = LRMultiplier(
                self._optimizer,
                self.scheduler,
                self.trainer.max_iter,
                last_iter=self.trainer.iter - 1,
            )
        self._group = LRScheduler.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: Optimizer) -> int:
        """Index of the largest group, or of the commonest rate if all groups have one parameter."""
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in optimizer.param_groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        """Store the rate that this iteration used, then step."""
        assert self._optimizer is not None
        rate = self._optimizer.param_groups[self._group]["lr"]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """State of a torch scheduler."""
        is_torch = isinstance(self.scheduler, TorchLRScheduler)
        return self.scheduler.state_dict() if is_torch else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a torch scheduler."""
        if isinstance(self.scheduler, TorchLRScheduler):
            logging.getLogger(__name__).info("Loading scheduler from state_dict ...")
            self.scheduler.load_state_dict(state_dict)


class EvalHook(HookBase):
    """Evaluates every `eval_period` iterations and at the end, and stores the results.

    All processes have it or none; one that has nothing to do gets `lambda: None`.
    """

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Mapping[str, Any] | None],
        eval_after_train: bool = True,
    ) -> None:
        """Evaluate with `eval_function`, which returns nested dicts of numbers.

        Args:
            eval_period: 0 evaluates only at the end.
            eval_function: takes no argument.
            eval_after_train: whether to evaluate after the last iteration.
        """
        self._period = eval_period
        self._func: Callable[[], Mapping[str, Any] | None] | None = eval_function
        self._eval_after_train = eval_after_train

    def after_step(self) -> None:
        """Evaluate if it is time; the last iteration is left to `after_train`."""
        if _is_due(self.trainer, self._period):
            self._do_eval()

    def after_train(self) -> None:
        """Evaluate if training was completed, then let go of the function and what it holds."""
        if self._eval_after_train and _is_complete(self.trainer):
            self._do_eval()
        self._func = None

    def _do_eval(self) -> None:
        assert self._func is not None
        results = self._func()
        if results:
            assert isinstance(results, dict), f"eval_function must return a dict, got {results!r}."
            from detectron2.evaluation.testing import flatten_results_dict  # loads pycocotools

            flat = flatten_results_dict(results)
            for name, value in flat.items():
                try:
                    float(value)
                except (TypeError, ValueError) as error:
                    raise ValueError(
                        f"eval_function must return numbers in (nested) dicts, got {name}: {value}"
                    ) from error
            self.trainer.storage.put_scalars(**flat, smoothing_hint=False)
        comm.synchronize()  # processes may have needed different times


class PreciseBN(HookBase):
    """Replaces running batch-norm statistics by true means, periodically and at the end."""

    def __init__(
        self, period: int, model: nn.Module, data_loader: Iterable[Any], num_iter: int
    ) -> None:
        """Run `num_iter` batches through the model every `period` iterations (0: at the end only).

        It does nothing if the model has no batch norm in training mode.
        """
        self._logger = logging.getLogger(__name__)
        self._period = period
        self._model = model
        self._data_loader = data_loader
        self._num_iter = num_iter
        self._data_iter: Iterator[Any] | None = None
        self._disabled = not get_bn_modules(model)
        if self._disabled:
            self._logger.info("PreciseBN does nothing: no batch norm in training mode.")

    def after_step(self) -> None:
        """Update if it is time."""
        if _is_due(self.trainer, self._period) or self.trainer.iter + 1 == self.trainer.max_iter:
            self.update_stats()

    def update_stats(self) -> None:
        """Compute the statistics; what the model stores meanwhile is thrown away."""
        if self._disabled:
            return
        if self._data_iter is None:
            self._data_iter = iter(self._data_loader)
        self._logger.info("Precise batch norm: %d batches.", self._num_iter)
        with EventStorage():
            batches = itertools.islice(self._data_iter, self._num_iter)
            update_bn_stats(self._model, batches, self._num_iter)


class TorchMemoryStats(HookBase):
    """Logs CUDA memory every `period` iterations, `max_runs` times, and a summary the last time."""

    def __init__(self, period: int = 20, max_runs: int = 10) -> None:
        """Count from 0."""
        self._logger = logging.getLogger(__name__)
        self._period = period
        self._max_runs = max_runs
        self._runs = 0

    def after_step(self) -> None:
        """Log if it is time."""
        is_time = (self.trainer.iter + 1) % self._period == 0 or _is_complete(self.trainer)
        if not is_time or self._runs >= self._max_runs or not torch.cuda.is_available():
            return
        self._runs += 1
        readings = {
            "max_reserved_mem": torch.cuda.max_memory_reserved(),
            "reserved_mem": torch.cuda.memory_reserved(),
            "max_allocated_mem": torch.cuda.max_memory_allocated(),
            "allocated_mem": torch.cuda.memory_allocated(),
        }
        memory = "  ".join(f"{name}: {count / 2**20:.0f}MB" for name, count in readings.items())
        self._logger.info(f" iter: {self.trainer.iter}  {memory} ")
        if self._runs == self._max_runs:
            self._logger.info("\n%s", torch.cuda.memory_summary())
        torch.cuda.reset_peak_memory_stats()
