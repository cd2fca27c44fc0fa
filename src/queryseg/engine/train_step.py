"""One optimizer step: forward, backward, the check for finite values, clipping, update."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from queryseg.engine.gradients import GradientClipper, gradient_norm

AMP_DTYPES = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
Batch = list[dict[str, Any]]
_logger = logging.getLogger("queryseg")


class NonFiniteError(FloatingPointError):
    """A loss or a gradient is infinite or NaN. The model has not been updated with it."""


class TrainStep:
    """Runs single training steps and owns what they change besides the model.

    Args:
        model: returns a dict of losses (or one loss) for a batch; possibly wrapped for DDP.
        data_loader: gives batches, lists of samples, without end.
        optimizer: updates the parameters.
        device_type: `"cpu"` or `"cuda"`, for autocast and the loss scaler.
        amp_dtype: a key of `AMP_DTYPES` for mixed precision, None for full precision. Losses are
            scaled for float16 only.
        accumulate: parts that every batch is split into, one forward and backward pass each, to
            save memory. The gradient is the mean over the parts.
        clipper: clips the gradients, None to leave them.

    Raises:
        ValueError: an unknown `amp_dtype`, or `accumulate` below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Batch],
        optimizer: torch.optim.Optimizer,
        *,
        device_type: str = "cpu",
        amp_dtype: str | None = None,
        accumulate: int = 1,
        clipper: GradientClipper | None = None,
    ) -> None:
        if amp_dtype is not None and amp_dtype not in AMP_DTYPES:
            raise ValueError(f"train.amp.dtype is {amp_dtype!r}: use one of {list(AMP_DTYPES)}")
        if accumulate < 1:
            raise ValueError(f"train.accumulate is {accumulate}: it must be at least 1")
        self.model = model.train()
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.accumulate = accumulate
        self.clipper = clipper
        self._device_type = device_type
        self._amp_dtype = AMP_DTYPES[amp_dtype] if amp_dtype else None
        self.grad_scaler = torch.amp.GradScaler(
            device_type, enabled=self._amp_dtype == torch.float16
        )
        if device_type == "cpu" and self._amp_dtype == torch.float16:
            _logger.warning("float16 is slow on a CPU: train.amp.dtype=bfloat16, or no amp")
        if self.grad_scaler.is_enabled():  # a skipped first step makes torch doubt the order
            warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)`")
        self._batches: Iterator[Batch] | None = None

    def run(self, iteration: int, after_backward: Callable[[], None]) -> None:
        """Train on the next batch and write losses, gradient norm and times to the event storage.

        Args:
            iteration: its number, for messages.
            after_backward: called when the gradients are there, before they are used.

        Raises:
            NonFiniteError: naming the iteration, the term and the images; on every process, and
                before the model is updated.
        """
        start = time.perf_counter()
        parts = self._next_parts()
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad()
        names, losses = self._forward_backward(iteration, parts)
        after_backward()
        self.grad_scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = gradient_norm(parameters).to(losses)

        times = losses.new_tensor([data_time])
        rows = _gather_rows(torch.cat([losses.mean(0), norm[None], times]))
        self._stop_unless_finite(iteration, parts, names, losses, rows)
        if self.clipper is not None:
            self.clipper(parameters, norm)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self._record(names, rows)

    def state_dict(self) -> dict[str, Any]:
        """States of the optimizer and of the loss scaler."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self.grad_scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`. The scale is kept only if both runs use float16."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.grad_scaler.is_enabled() and state["grad_scaler"]:
            self.grad_scaler.load_state_dict(state["grad_scaler"])

    def close(self) -> None:
        """Stop the loader's workers."""
        self._batches = None

    def _next_parts(self) -> list[Batch]:
        if self._batches is None:
            self._batches = iter(self.data_loader)
        batch = next(self._batches)
        check_parts(len(batch), self.accumulate)
        size = len(batch) // self.accumulate
        return [batch[start : start + size] for start in range(0, len(batch), size)]

    def _forward_backward(self, iteration: int, parts: list[Batch]) -> tuple[list[str], Tensor]:
        """Names of the loss terms and their values, float32 (parts, terms)."""
        rows = []
        names: list[str] = []
        for number, part in enumerate(parts, start=1):
            with self._sync(last=number == len(parts)):
                with torch.autocast(
                    self._device_type, self._amp_dtype, enabled=self._amp_dtype is not None
                ):
                    losses = self._losses(iteration, part)
                    total = torch.stack([value.float() for value in losses.values()]).sum()
                self.grad_scaler.scale(total / len(parts)).backward()
            names = sorted(losses)
            rows.append(torch.stack([losses[name].detach().float() for name in names]))
        return names, torch.stack(rows)

    def _losses(self, iteration: int, part: Batch) -> dict[str, Tensor]:
        """What the model returns, by name; some models look for bad numbers themselves."""
        try:
            losses = self.model(part)
        except FloatingPointError as error:
            message = f"iteration {iteration}: {error} (images {_image_names([part])})"
            raise NonFiniteError(message) from error
        return {"total_loss": losses} if isinstance(losses, Tensor) else losses

    def _sync(self, last: bool) -> AbstractContextManager[Any]:
        """Under DDP only the backward pass of the last part exchanges gradients."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return nullcontext()

    def _stop_unless_finite(
        self, iteration: int, parts: list[Batch], names: list[str], losses: Tensor, rows: Tensor
    ) -> None:
        num_terms = len(names)
        finite = rows[:, :num_terms].isfinite().all()
        # With float16 the scaler skips steps with infinite gradients and lowers its scale.
        if finite and (rows[:, num_terms].isfinite().all() or self.grad_scaler.is_enabled()):
            return
        reports = comm.all_gather(
            _describe_losses(parts, names, losses) or ("" if not finite else self._describe_grads())
        )
        images = "" if not finite else f" (images {_image_names(parts)})"
        found = "; ".join(dict.fromkeys(report for report in reports if report))
        raise NonFiniteError(f"iteration {iteration}: {found}{images}")

    def _describe_grads(self) -> str:
        bad = [
            name.removeprefix("module.")
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None and not parameter.grad.isfinite().all()
        ]
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        return f"all losses are finite but not the gradients of {', '.join(bad[:3])}{more}"

    def _record(self, names: list[str], rows: Tensor) -> None:
        """Means over the processes; of the data times the longest."""
        storage = get_event_storage()
        means = rows.mean(0).tolist()
        losses = dict(zip(names, means))
        storage.put_scalar("total_loss", sum(losses.values()))
        if len(losses) > 1:
            storage.put_scalars(**losses)
        if math.isfinite(means[len(names)]):  # not so in steps that float16 skips
            storage.put_scalar("grad_norm", means[len(names)])
        storage.put_scalar("data_time", rows[:, -1].max().item())
        if self.grad_scaler.is_enabled():
            storage.put_scalar("grad_scale", self.grad_scaler.get_scale(), smoothing_hint=False)


def check_parts(images: int, accumulate: int) -> None:
    """See that the images that a process gets in a step can be split into equal parts.

    Raises:
        ValueError: they cannot.
    """
    if images % accumulate:
        raise ValueError(
            f"train.accumulate={accumulate} does not divide the {images} images that each process "
            "gets in a step"
        )


def _gather_rows(row: Tensor) -> Tensor:
    """The vectors (n,) of all processes as (processes, n) on the CPU: the one sync of a step."""
    if comm.get_world_size() == 1:
        return row[None].cpu()
    rows = [torch.empty_like(row) for _ in range(comm.get_world_size())]
    distributed.all_gather(rows, row)
    return torch.stack(rows).cpu()


def _describe_losses(parts: list[Batch], names: list[str], losses: Tensor) -> str:
    """Which terms are not finite on this process and for which images; empty if all are."""
    bad_parts = ~losses.isfinite().all(dim=1)
    if not bad_parts.any():
        return ""
    values = losses[bad_parts].sum(0).tolist()
    bad_terms = ~losses.isfinite().all(dim=0)
    terms = [f"{name} is {value}" for name, value, bad in zip(names, values, bad_terms) if bad]
    images = _image_names([part for part, bad in zip(parts, bad_parts) if bad])
    return f"{', '.join(terms)} for the images {images}"


def _image_names(parts: list[Batch]) -> str:
    samples = [sample for part in parts for sample in part]
    return ", ".join(
        f"{sample.get('image_id', 'without id')} ({sample.get('file_name', 'no file name')})"
        for sample in samples
    )
