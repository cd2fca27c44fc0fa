"""The loop that runs a model over a data set, and what collects its results."""

import datetime
import logging
import time
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from detectron2.utils.comm import get_world_size, is_main_process
from detectron2.utils.logger import log_every_n_seconds

NUM_WARMUP = 5  # batches that do not count for the speed
SLOW_BATCH_SECONDS = 5  # above this, progress is logged from the first batch on

_logger = logging.getLogger(__name__)


class DatasetEvaluator:
    """Base class: collects the outputs for each input and makes results of them at the end."""

    def reset(self) -> None:
        """Forget everything, before a new round."""

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Take in a batch: what the model was given, and what it returned."""

    def evaluate(self) -> dict[str, Any] | None:
        """The results, as task -> metric -> value; processes other than the first may give None."""


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one."""

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        self._evaluators = evaluators

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, Any]:
        joined: dict[str, Any] = {}
        for evaluator in self._evaluators:
            results = evaluator.evaluate()
            if not is_main_process() or results is None:
                continue
            double = joined.keys() & results.keys()
            assert not double, f"several evaluators give results for {double}"
            joined |= results
        return joined


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Within this context the model is in eval mode; afterwards it is as before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class _Stopwatch:
    """Seconds spent in each part of the loop since the warm-up."""

    def __init__(self, num_warmup: int) -> None:
        self.num_warmup = num_warmup
        self.num_batches = 0
        self._restart()

    def _restart(self) -> None:
        self.data = self.compute = self.evaluation = 0.0
        self.start = time.perf_counter()

    def begin_batch(self, data_seconds: float) -> None:
        if self.num_batches == self.num_warmup:
            self._restart()
        else:
            self.data += data_seconds
        self.num_batches += 1

    @property
    def total(self) -> float:
        return time.perf_counter() - self.start

    @property
    def num_counted(self) -> int:
        """Batches that the times are for."""
        is_warm = self.num_batches > self.num_warmup
        return self.num_batches - self.num_warmup if is_warm else self.num_batches


def inference_on_dataset(
    model: Callable[[Any], Any],
    data_loader: Any,
    evaluator: DatasetEvaluator | MutableSequence[DatasetEvaluator] | None,
    callbacks: Mapping[str, Callable[[], Any]] | None = None,
) -> dict[str, Any]:
    """Run a model over all batches, without gradients, and evaluate it; log its speed.

    Args:
        model: a module (run in eval mode) or any function of a batch.
        data_loader: gives batches and has a length.
        evaluator: one, a list, or None to measure only the speed.
        callbacks: functions for "on_start", "before_inference", "after_inference" and "on_end".

    Returns:
        The results of the evaluator, {} where it gives None.
    """
    total = len(data_loader)
    _logger.info(f"Start inference on {total} batches")
    evaluator = _as_one_evaluator(evaluator)
    evaluator.reset()
    watch = _Stopwatch(min(NUM_WARMUP, total - 1))
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        _call(callbacks, "on_start")
        data_start = time.perf_counter()
        for inputs in data_loader:
            watch.begin_batch(time.perf_counter() - data_start)
            _process_batch(model, inputs, evaluator, callbacks, watch)
            _log_progress(watch, total)
            data_start = time.perf_counter()
        _call(callbacks, "on_end")
    _log_speed(watch)
    results = evaluator.evaluate()
    return {} if results is None else results


def _as_one_evaluator(
    evaluator: DatasetEvaluator | MutableSequence[DatasetEvaluator] | None,
) -> DatasetEvaluator:
    if evaluator is None:
        return DatasetEvaluators([])
    return DatasetEvaluators(evaluator) if isinstance(evaluator, MutableSequence) else evaluator


def _call(callbacks: Mapping[str, Callable[[], Any]] | None, name: str) -> None:
    if callbacks is not None and name in callbacks:
        callbacks[name]()


def _process_batch(
    model: Callable[[Any], Any],
    inputs: Any,
    evaluator: DatasetEvaluator,
    callbacks: Mapping[str, Callable[[], Any]] | None,
    watch: _Stopwatch,
) -> None:
    start = time.perf_counter()
    _call(callbacks, "before_inference")
    outputs = model(inputs)
    _call(callbacks, "after_inference")
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    computed = time.perf_counter()
    evaluator.process(inputs, outputs)
    watch.compute += computed - start
    watch.evaluation += time.perf_counter() - computed


def _log_progress(watch: _Stopwatch, total: int) -> None:
    count = watch.num_counted
    if watch.num_batches <= 2 * watch.num_warmup and watch.compute / count <= SLOW_BATCH_SECONDS:
        return
    seconds = watch.total / count
    left = datetime.timedelta(seconds=int(seconds * (total - watch.num_batches)))
    message = (
        f"Inference done {watch.num_batches}/{total}. "
        f"Dataloading: {watch.data / count:.4f} s/iter. "
        f"Inference: {watch.compute / count:.4f} s/iter. "
        f"Eval: {watch.evaluation / count:.4f} s/iter. "
        f"Total: {seconds:.4f} s/iter. ETA={left}"
    )
    log_every_n_seconds(logging.INFO, message, n=5)


def _log_speed(watch: _Stopwatch) -> None:
    """Log the times of this process; scripts look for these lines."""
    count, devices = max(watch.num_counted, 1), get_world_size()
    for what, seconds in (("time", watch.total), ("pure compute time", watch.compute)):
        _logger.info(
            f"Total inference {what}: {datetime.timedelta(seconds=seconds)} "
            f"({seconds / count:.6f} s / iter per device, on {devices} devices)"
        )
