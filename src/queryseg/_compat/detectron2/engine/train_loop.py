"""The training loop: steps, and hooks around them."""

import concurrent.futures
import logging
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage

__all__ = ["AMPTrainer", "HookBase", "SimpleTrainer", "TrainerBase"]

_logger = logging.getLogger(__name__)


class HookBase:
    """Something to do around the steps of training.

    The trainer calls `before_train`, then for each iteration `before_step`, (its `run_step`, with
    `after_backward` in it), `after_step`, and in the end, also after an error, `after_train`. Work
    that takes time belongs into `after_step`, so that timers which end there do not count it.

    A hook with a non-empty `state_dict` also has `load_state_dict`.
    """

    trainer: "TrainerBase"
    """A weak proxy, set by `TrainerBase.register_hooks`."""

    def before_train(self) -> None:
        """Called before the first iteration."""

    def after_train(self) -> None:
        """Called after the last iteration; `trainer.iter` tells whether training was completed."""

    def before_step(self) -> None:
        """Called before each iteration."""

    def after_backward(self) -> None:
        """Called between the backward pass and the optimizer's step."""

    def after_step(self) -> None:
        """Called after each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this hook."""
        return {}


class TrainerBase:
    """Runs `run_step` from `start_iter` to `max_iter` with hooks around it.

    Attributes:
        iter: current iteration; equals `max_iter` once training is complete.
        start_iter: iteration this run began with.
        max_iter: iteration to stop before.
        storage: the `EventStorage` that is open during training.
    """

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int
        self.storage: EventStorage

    def register_hooks(self, hooks: Sequence[HookBase | None]) -> None:
        """Add hooks, to be called in this order; None is skipped."""
        for hook in hooks:
            if hook is None:
                continue
            assert isinstance(hook, HookBase), hook
            hook.trainer = weakref.proxy(self)  # no cycle: hooks must not keep the trainer alive
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Train from `start_iter` until `max_iter`; `after_train` runs after an error too."""
        self.start_iter, self.iter, self.max_iter = start_iter, start_iter, max_iter
        _logger.info("Training iterations %d to %d.", start_iter, max_iter - 1)
        with EventStorage(start_iter) as self.storage, ExitStack() as at_the_end:
            at_the_end.callback(self.after_train)
            try:
                self.before_train()
                while self.iter < max_iter:
                    for part in (self.before_step, self.run_step, self.after_step):
                        part()
                    self.iter += 1  # not after an error: hooks see which iteration failed
            except Exception:
                _logger.exception("Training stopped in iteration %d:", self.iter)
                raise

    def before_train(self) -> None:
        """Call the hooks."""
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        """Call the hooks, with the storage at the trainer's iteration."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self) -> None:
        """Call the hooks, with the storage at the trainer's iteration."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        """Call the hooks."""
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        """Call the hooks."""
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """One iteration, defined by the subclass."""
        raise NotImplementedError(f"{type(self).__name__} has to define run_step().")

    def state_dict(self) -> dict[str, Any]:
        """The iteration just done, and the state of the first hook of each class that has one."""
        hooks: dict[str, dict[str, Any]] = {}
        for hook in self._hooks:
            state = hook.state_dict()
            if state:
                hooks.setdefault(type(hook).__qualname__, state)
        return {"iteration": self.iter, **({"hooks": hooks} if hooks else {})}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the iteration and the hooks' states; states of absent hooks are ignored."""
        self.iter = state_dict["iteration"]
        for name, state in state_dict.get("hooks", {}).items():
            hook: Any = next((h for h in self._hooks if type(h).__qualname__ == name), None)
            if hook is None:
                _logger.warning("No hook %s here: its state is ignored.", name)
            else:
                hook.load_state_dict(state)


class SimpleTrainer(TrainerBase):
    """One model, one loader, one optimizer: data, losses, gradients, step."""

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        """Put the model into training mode and keep the parts.

        Args:
            model: takes what the loader gives; returns a dict of scalar losses, or one loss.
            data_loader: an endless iterable.
            optimizer: the optimizer.
            gather_metric_period: metrics are gathered from all ranks every so many iterations.
            zero_grad_before_forward: clear gradients before the forward pass, not after it.
            async_write_metrics: write metrics in a thread of their own.
        """
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self._data_loader_iter_obj: Iterator[Any] | None = None
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        # One worker: metrics are written in the order of the iterations.
        self.concurrent_executor = concurrent.futures.ThreadPoolExecutor(max_workers=1)

    def run_step(self) -> None:
        """Data, losses, gradients, metrics, optimizer step."""
        data, data_time = self._next_data()
        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        total, losses = self._total_loss(data)
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        total.backward()
        self.after_backward()
        self._submit_metrics(losses, data_time)
        self.optimizer.step()

    def after_train(self) -> None:
        """Call the hooks and wait until all metrics are written."""
        super().after_train()
        self.concurrent_executor.shutdown(wait=True)

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable[Any]]) -> None:
        """Let go of the loader, then use the one that `data_loader_builder` makes."""
        del self.data_loader
        self._data_loader_iter_obj = None
        self.data_loader = data_loader_builder()

    @property
    def _data_loader_iter(self) -> Iterator[Any]:
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = iter(self.data_loader)
        return self._data_loader_iter_obj

    def _next_data(self) -> tuple[Any, float]:
        assert self.model.training, f"[{type(self).__name__}] model was changed to eval mode!"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        return data, time.perf_counter() - start

    def _total_loss(self, data: Any) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        losses = self.model(data)
        if isinstance(losses, torch.Tensor):
            return losses, {"total_loss": losses}
        return sum(losses.values()), losses

    def _submit_metrics(self, losses: Mapping[str, torch.Tensor], data_time: float) -> None:
        if self.async_write_metrics:
            self.concurrent_executor.submit(self._write_metrics, losses, data_time, iter=self.iter)
        else:
            self._write_metrics(losses, data_time)

    def _write_metrics(
        self,
        loss_dict: Mapping[str, torch.Tensor],
        data_time: float,
        prefix: str = "",
        iter: int | None = None,
    ) -> None:
        done = 1 + (self.iter if iter is None else iter)
        if done % self.gather_metric_period:
            return
        try:
            self.write_metrics(loss_dict, data_time, done - 1, prefix)
        except Exception:  # in a thread of its own nobody would see it
            _logger.exception("The metrics of iteration %d could not be written:", done - 1)
            raise

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, torch.Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """Put this iteration's losses (mean over ranks) and data time (maximum) into the storage.

        Args:
            loss_dict: scalar losses.
            data_time: seconds that this rank waited for data.
            cur_iter: the iteration.
            prefix: put before "total_loss".

        Raises:
            FloatingPointError: the sum of the losses is not finite.
        """
        storage = get_event_storage()
        storage.put_scalar("rank_data_time", data_time, cur_iter=cur_iter)
        own = {name: loss.detach().cpu().item() for name, loss in loss_dict.items()}
        ranks = comm.gather((own, data_time))
        if not comm.is_main_process():
            return
        storage.put_scalar("data_time", max(waited for _, waited in ranks), cur_iter=cur_iter)
        metrics = {name: np.mean([losses[name] for losses, _ in ranks]) for name in ranks[0][0]}
        total = sum(metrics.values())
        if not np.isfinite(total):
            raise FloatingPointError(
                f"Loss became infinite or NaN at iteration={cur_iter}!\nloss_dict = {metrics}"
            )
        storage.put_scalar(f"{prefix}total_loss", total, cur_iter=cur_iter)
        if len(metrics) > 1:
            storage.put_scalars(cur_iter=cur_iter, **metrics)

    def state_dict(self) -> dict[str, Any]:
        """Adds the optimizer's state."""
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Loads the optimizer's state too."""
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class AMPTrainer(SimpleTrainer):
    """`SimpleTrainer` in automatic mixed precision, also on a CPU (the real one asks for CUDA)."""

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: torch.amp.GradScaler | None = None,
        precision: torch.dtype = torch.float16,
        log_grad_scaler: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        """Keep the parts.

        Args:
            model: see `SimpleTrainer`, also for the arguments not named here.
            grad_scaler: scales the loss; a new `torch.amp.GradScaler` unless given.
            precision: dtype of the operations that autocast lowers.
            log_grad_scaler: put the scale into the storage as "[metric]grad_scaler".
        """
        one_device = not isinstance(model, DataParallel) and not (
            isinstance(model, DistributedDataParallel) and len(model.device_ids or ()) > 1
        )
        assert one_device, "AMPTrainer does not support several devices in one process."
        super().__init__(
            model,
            data_loader,
            optimizer,
            gather_metric_period,
            zero_grad_before_forward,
            async_write_metrics,
        )
        self._device_type = next(model.parameters()).device.type
        self.grad_scaler = grad_scaler or torch.amp.GradScaler(self._device_type)
        self.precision = precision
        self.log_grad_scaler = log_grad_scaler

    def run_step(self) -> None:
        """The step of `SimpleTrainer`, the forward pass under autocast, the loss scaled."""
        data, data_time = self._next_data()
        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        with torch.autocast(self._device_type, dtype=self.precision):
            total, losses = self._total_loss(data)
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self.grad_scaler.scale(total).backward()
        if self.log_grad_scaler:
            scale = self.grad_scaler.get_scale()
            get_event_storage().put_scalar("[metric]grad_scaler", scale)
        self.after_backward()
        self._submit_metrics(losses, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Adds the scaler's state."""
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Loads the scaler's state too."""
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
