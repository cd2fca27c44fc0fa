"""Times and peak memory of the contenders of a case, side by side in one process."""

import ctypes
import ctypes.util
import gc
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from queryseg.tools.op_benchmark.case import Contender

RUNS_PER_TURN = 5
HEAD_START = 5_000_000  # clocks of a GPU, some milliseconds

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass
class Measurement:
    """Of one contender in one pass.

    Attributes:
        milliseconds: median time.
        peak_bytes: memory on top of what was there before; None where this is not known.
        result_bytes: how much of it anybody would need: the output and, with a backward pass, its
            gradient and those of the inputs.
    """

    milliseconds: float
    peak_bytes: int | None
    result_bytes: int

    @property
    def extra_bytes(self) -> int | None:
        """Memory on top of that."""
        return None if self.peak_bytes is None else max(0, self.peak_bytes - self.result_bytes)


def run_pass(contender: Contender, name: str) -> tuple[Tensor, ...]:
    """One forward pass, or one forward and backward pass.

    Returns:
        The output and, with a backward pass, the gradient that went in and those that came out.
    """
    if name == "forward":
        with torch.no_grad():
            return (contender.run(),)
    inputs = [tensor.requires_grad_() for tensor in contender.inputs]
    output = contender.run()
    grad = torch.ones_like(output)
    return output.detach(), grad, *torch.autograd.grad(output, inputs, grad)


def measure(
    contenders: list[Contender], pass_name: str, device: torch.device, runs: int, threads: int
) -> dict[str, Measurement]:
    """Median time and peak extra memory of each contender.

    Contenders take turns of a few runs, so that whatever else the machine does meets them all. The
    first run of a turn finds the caches as the other contender left them and is not counted. At one
    CPU thread the time is the process's CPU time, which other processes disturb least.

    Args:
        contenders: to be compared; those without this pass are left out.
        pass_name: `"forward"` or `"forward_backward"`.
        device: where their tensors are.
        runs: timed runs of each.
        threads: as set with `torch.set_num_threads`.

    Returns:
        Contender name to measurement.
    """
    passes = {
        one.name: partial(run_pass, one, pass_name) for one in contenders if pass_name in one.passes
    }
    results = {name: sum(tensor.nbytes for tensor in run()) for name, run in passes.items()}
    peaks = {name: peak_memory(run, device) for name, run in passes.items()}
    times: dict[str, list[float]] = {name: [] for name in passes}
    for first in range(0, runs, RUNS_PER_TURN):
        for name, run in passes.items():
            run()
            for _ in range(min(RUNS_PER_TURN, runs - first)):
                times[name].append(timed(run, device, threads))
    return {
        name: Measurement(1e3 * statistics.median(times[name]), peaks[name], results[name])
        for name in passes
    }


def timed(run: Callable[[], object], device: torch.device, threads: int) -> float:
    """Seconds of one run.

    A GPU is kept waiting until the host has launched the whole run, unless that reads from the GPU:
    what the host takes for it is no GPU time.
    """
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(device)
        with torch.cuda.device(device):
            torch.cuda._sleep(HEAD_START)
        start.record(stream)
        run()
        end.record(stream)
        torch.cuda.synchronize(device)
        return 1e-3 * start.elapsed_time(end)
    clock = time.process_time if threads == 1 else time.perf_counter
    begin = clock()
    run()
    return clock() - begin


def peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a run needs on top of what is there before it; None where this is not known.

    On the CPU it is the peak of the resident set, so that the scratch buffers of compiled kernels
    count. The first run, which warms up, is not looked at.
    """
    run()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        _return_free_memory()
        _CLEAR_REFS.write_text("5")  # resets the peak, see proc(5)
        before = _status_bytes("VmRSS")
        run()
        return _status_bytes("VmHWM") - before
    except OSError:
        return None


def _status_bytes(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return 1024 * int(match.group(1)) if match else 0


def _return_free_memory() -> None:
    """Give what the allocator keeps back to the system, so that reusing it is seen as a need."""
    name = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(name), "malloc_trim", None) if name else None
    if trim is not None:
        trim(0)
