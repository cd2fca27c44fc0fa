"""The command line of the operator benchmark."""

import argparse
import importlib
import json
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from queryseg.engine.run_setup import resolve_device
from queryseg.ops import build_info
from queryseg.tools import op_benchmark
from queryseg.tools.console import ToolError, say
from queryseg.tools.op_benchmark.case import Case, Contender
from queryseg.tools.op_benchmark.machine import (
    copy_bandwidth,
    describe_machine,
    floors,
    kernel_variant,
    l1_bandwidth,
)
from queryseg.tools.op_benchmark.measure import Measurement, measure

# More ways to compute a case: takes the case, the device and our own contender. What it returns
# stands before the case's own baselines, so that the ratio is taken against the first of them.
Extra = Callable[[Case, torch.device, Contender], list[Contender]]


@dataclass
class Result:
    """One pass of one case: every contender's figures, and what bounds them."""

    found: dict[str, Measurement]
    floors: dict[str, float]

    @property
    def ratio(self) -> float:
        """Time of the baseline (the second contender) over ours (the first)."""
        ours, baseline, *_ = self.found.values()
        return baseline.milliseconds / ours.milliseconds


def all_cases() -> list[Case]:
    """The cases of every `<op>_cases` module beside this one."""
    names = sorted(module.name for module in pkgutil.iter_modules(op_benchmark.__path__))
    modules = [
        importlib.import_module(f"{op_benchmark.__name__}.{name}")
        for name in names
        if name.endswith("_cases")
    ]
    return [case for module in modules for case in module.CASES]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the operators against their baselines.")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, auto (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--runs", type=int, default=20, help="timed runs of each contender")
    parser.add_argument("--op", action="append", help="only this operator (may be repeated)")
    parser.add_argument("--case", action="append", help="only this case (may be repeated)")
    parser.add_argument("--list", action="store_true", help="list the cases and leave")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--output", type=Path, help="write the JSON object to this file too")
    options = parser.parse_args(argv)
    if options.runs < 1 or options.threads < 1:
        raise ToolError("--runs and --threads must be at least 1")
    return options


def chosen(cases: list[Case], options: argparse.Namespace) -> list[Case]:
    """The cases that the options ask for.

    Raises:
        ToolError: an operator or case that does not exist.
    """
    for wanted, known in (
        (options.op, {case.op for case in cases}),
        (options.case, {case.name for case in cases}),
    ):
        unknown = set(wanted or ()) - known
        if unknown:
            raise ToolError(f"no {sorted(unknown)}: choose from {sorted(known)}")
    return [
        case
        for case in cases
        if (not options.op or case.op in options.op)
        and (not options.case or case.name in options.case)
    ]


def run_cases(
    cases: list[Case], device: torch.device, options: argparse.Namespace, extra: Extra | None
) -> dict[str, Result]:
    """Measure every pass of every case, under its key."""
    copy, l1 = copy_bandwidth(device), l1_bandwidth(device)
    results = {}
    for case in cases:
        ours, *others = case.build(device)
        more = extra(case, device, ours) if extra else []
        costs = case.costs()
        for name in case.passes:
            found = measure([ours, *more, *others], name, device, options.runs, options.threads)
            bounds = floors(costs[name], copy, l1) if name in costs else {}
            results[f"{case.key}/{name}"] = Result(found, bounds)
    return results


def report(results: dict[str, Result], options: argparse.Namespace) -> dict[str, Any]:
    """Everything measured, as one JSON-able object."""
    return {
        "device": options.device,
        "machine": describe_machine(options.device),
        "threads": options.threads,
        "runs": options.runs,
        "clock": clock(options),
        "torch": torch.__version__,
        "kernels": {name: fact for name, fact in build_info().items() if name != "path"},
        "variant": kernel_variant(options.device),
        "ratios": {key: result.ratio for key, result in results.items()},
        "milliseconds": {
            key: {name: one.milliseconds for name, one in result.found.items()}
            for key, result in results.items()
        },
        "peak_bytes": {
            key: {name: one.peak_bytes for name, one in result.found.items()}
            for key, result in results.items()
        },
        "extra_bytes": {
            key: {name: one.extra_bytes for name, one in result.found.items()}
            for key, result in results.items()
        },
        "floors": {key: result.floors for key, result in results.items()},
    }


def clock(options: argparse.Namespace) -> str:
    """What kind of time the figures are."""
    if options.device.startswith("cuda"):
        return "GPU time"
    return "CPU time" if options.threads == 1 else "wall time"


def table(results: dict[str, Result]) -> str:
    """One row per case, pass and contender, and one for each floor."""
    rows: list[tuple[Any, ...]] = []
    for key, result in results.items():
        ours = next(iter(result.found.values())).milliseconds
        for index, (name, one) in enumerate(result.found.items()):
            extra = "" if one.extra_bytes is None else f"{one.extra_bytes / 2**20:.1f}"
            rows.append(
                (key if index == 0 else "", name, one.milliseconds, one.milliseconds / ours, extra)
            )
        for name, bound in result.floors.items():
            title = f"floor of the {'memory' if name == 'memory_ms' else 'L1 caches'}"
            rows.append(("", title, bound, bound / ours, ""))
    headers = ("case", "", "ms", "over ours", "extra MiB")
    return tabulate(rows, headers=headers, floatfmt=".2f", disable_numparse=[4])


def main(argv: Sequence[str] | None = None, *, extra: Extra | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(argv)
    cases = chosen(all_cases(), options)
    if options.list:
        for case in cases:
            say(case.key)
        return 0
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    options.device = str(device)
    results = run_cases(cases, device, options, extra)
    if options.output is not None or options.json:
        text = json.dumps(report(results, options), indent=None if options.json else 1)
        if options.output is not None:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(text + "\n")
    if options.json:
        say(text)
        return 0
    threads = f", {options.threads} threads" if device.type == "cpu" else ""
    say(f"Median {clock(options)} of {options.runs} runs{threads}")
    say(f"Kernels chosen: {kernel_variant(options.device)}")
    say(table(results))
    return 0
