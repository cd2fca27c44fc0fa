"""`python -m queryseg.tools.benchmark`: how fast a model or an operator is on this machine."""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import transforms as T
from omegaconf import DictConfig
from torch import nn
from tqdm import trange

from queryseg.checkpoint import load_into, open_checkpoint
from queryseg.engine import apply_overrides, load_config
from queryseg.engine.run_setup import resolve_device
from queryseg.tools.console import ToolError, run_tool, say
from queryseg.tools.op_benchmark import command as op_benchmark

# The method in which a model turns raw outputs into instances; Detectron2's R-CNN has its own.
POSTPROCESSING = ("segment", "_postprocess")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Latency:
    """Seconds per image, batch 1, over `runs` runs.

    `without_postprocessing` leaves out what turns raw outputs into instances of the output size; it
    is None for a model whose post-processing cannot be told apart.
    """

    config: str
    device: str
    dtype: str
    threads: int
    torch: str
    input_hw: tuple[int, int]
    output_hw: tuple[int, int]
    params_m: float
    runs: int
    median: float
    p90: float
    without_postprocessing: float | None
    peak_memory_mib: float | None

    def __str__(self) -> str:
        """The figures as aligned lines."""
        bare = self.without_postprocessing
        rows = [
            ("config", f"{self.config}, {self.params_m:.1f} M parameters"),
            ("device", f"{self.device}, {self.dtype}, {self.threads} threads, torch {self.torch}"),
            ("input", f"1 x {self.input_hw[0]} x {self.input_hw[1]} (height x width)"),
            ("output", f"{self.output_hw[0]} x {self.output_hw[1]}"),
            ("median", f"{_milliseconds(self.median)} over {self.runs} runs"),
            ("90 % below", _milliseconds(self.p90)),
            ("without post-processing", "not told apart" if bare is None else _milliseconds(bare)),
        ]
        if self.peak_memory_mib is not None:
            rows.append(("peak memory", f"{self.peak_memory_mib:.0f} MiB"))
        return "\n".join(f"{title:<25}{text}" for title, text in rows)


def build_parser() -> argparse.ArgumentParser:
    """The command line of the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m queryseg.tools.benchmark",
        description="Measure a model's latency: batch 1, from the image tensor to the instances, "
        "with a warm-up, synchronised, as the median over all runs.",
        epilog="--op NAME measures an operator against its baselines instead of a model and says "
        "which kernels were chosen: see --op NAME --help",
    )
    parser.add_argument("--config-file", required=True, help="config file, or an installed one")
    parser.add_argument("--weights", default="", help="checkpoint; random weights without it")
    parser.add_argument("--size", default="480x640", help="image HEIGHTxWIDTH before resizing")
    parser.add_argument("--runs", type=int, default=50, help="measured runs (default: 50)")
    parser.add_argument("--warm-up", type=int, default=10, help="runs before (default: 10)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="autocast type")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if any(word.partition("=")[0] == "--op" for word in words):
        return op_benchmark.main(words)
    args = build_parser().parse_intermixed_args(words)
    if args.runs < 1 or args.warm_up < 0:
        raise ToolError("--runs must be at least 1 and --warm-up at least 0")
    if args.threads:
        torch.set_num_threads(args.threads)
    latency = benchmark_model(args)
    say(json.dumps(asdict(latency)) if args.json else latency)
    return 0


def benchmark_model(args: argparse.Namespace) -> Latency:
    """Build the model that the arguments name and measure it."""
    cfg = apply_overrides(load_config(args.config_file), args.opts)
    device = resolve_device(args.device)
    model = instantiate(cfg.model)
    if args.weights:
        load_into(model, open_checkpoint(args.weights), complete=True)
    model.to(device).eval()
    inputs = make_input(cfg, parse_size(args.size))
    clock = PostprocessingClock(model, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode(), autocast(device, args.dtype):
        seconds = measure(lambda: model([inputs]), clock, device, args.warm_up, args.runs)
    without = [total - after for total, after in zip(seconds, clock.seconds)]
    return Latency(
        config=str(args.config_file),
        device=describe(device),
        dtype=args.dtype,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        input_hw=(inputs["image"].shape[1], inputs["image"].shape[2]),
        output_hw=(inputs["height"], inputs["width"]),
        params_m=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        runs=args.runs,
        median=statistics.median(seconds),
        p90=float(np.quantile(seconds, 0.9)),
        without_postprocessing=statistics.median(without) if clock.found else None,
        peak_memory_mib=_peak_memory_mib(device),
    )


def measure(
    run: Callable[[], object],
    clock: "PostprocessingClock",
    device: torch.device,
    warm_up: int,
    runs: int,
) -> list[float]:
    """Seconds of every run after the warm-up; `clock` starts over when the warm-up ends."""
    seconds = []
    for index in trange(warm_up + runs, unit="run", desc="measuring", leave=False, disable=None):
        if index == warm_up:
            clock.seconds.clear()
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        if index >= warm_up:
            seconds.append(time.perf_counter() - start)
    return seconds


class PostprocessingClock:
    """Measures how long a model's post-processing takes, by wrapping that method.

    Attributes:
        found: whether the model has such a method.
        seconds: one entry per call.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        name = next((name for name in POSTPROCESSING if hasattr(model, name)), None)
        self.found = name is not None
        self.seconds: list[float] = []
        if name is None:
            return
        original = getattr(model, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            synchronise(device)
            start = time.perf_counter()
            result = original(*args, **kwargs)
            synchronise(device)
            self.seconds.append(time.perf_counter() - start)
            return result

        setattr(model, name, timed)


def make_input(cfg: DictConfig, size_hw: tuple[int, int]) -> dict[str, Any]:
    """A noise image of a size, resized as the config's test mapper does.

    Returns:
        `image` (3, H, W) uint8 on the CPU, `height` and `width` before resizing.
    """
    noise = np.random.RandomState(0).randint(0, 256, (*size_hw, 3)).astype(np.uint8)
    aug_input = T.AugInput(noise)
    instantiate(cfg.dataloader.test.mapper).augmentations(aug_input)
    image = torch.from_numpy(np.ascontiguousarray(aug_input.image.transpose(2, 0, 1)))
    return {"image": image, "height": size_hw[0], "width": size_hw[1]}


def parse_size(text: str) -> tuple[int, int]:
    """`"480x640"` as (height, width).

    Raises:
        ToolError: it is not two positive numbers.
    """
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ToolError(f"--size {text}: write HEIGHTxWIDTH, for example 480x640")
    return int(height), int(width)


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[Any]:
    """Autocast to a type; nothing for float32."""
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[dtype])


def synchronise(device: torch.device) -> None:
    """Wait until the device has done everything it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe(device: torch.device) -> str:
    """The name of a device, for the report."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"


def _peak_memory_mib(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms ({1 / seconds:.1f} images/s)"


if __name__ == "__main__":
    run_tool(main)
