"""The command line of the operator benchmark."""

import argparse
import importlib
import json
import pkgutil
from collections.abc import Sequence
from typing import Any

import torch
from tabulate import tabulate

from queryseg.ops import build_info
from queryseg.tools import op_benchmark
from queryseg.tools.console import ToolError, say
from queryseg.tools.op_benchmark.case import Case
from queryseg.tools.op_benchmark.measure import Measurement, measure


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
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--runs", type=int, default=20, help="timed runs of each contender")
    parser.add_argument("--op", action="append", help="only this operator (may be repeated)")
    parser.add_argument("--case", action="append", help="only this case (may be repeated)")
    parser.add_argument("--list", action="store_true", help="list the cases and leave")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(argv)


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


def ratio(measurements: dict[str, Measurement]) -> float:
    """Time of the baseline (the second contender) over ours (the first)."""
    ours, baseline, *_ = measurements.values()
    return baseline.milliseconds / ours.milliseconds


def report(
    results: dict[str, dict[str, Measurement]], options: argparse.Namespace
) -> dict[str, Any]:
    """Everything measured, as one JSON-able object."""
    return {
        "device": torch.cuda.get_device_name(options.device)
        if options.device.startswith("cuda")
        else "cpu",
        "threads": options.threads,
        "runs": options.runs,
        "torch": torch.__version__,
        "kernels": build_info(),
        "ratios": {key: ratio(found) for key, found in results.items()},
        "milliseconds": {
            key: {name: one.milliseconds for name, one in found.items()}
            for key, found in results.items()
        },
        "peak_bytes": {
            key: {name: one.peak_bytes for name, one in found.items()}
            for key, found in results.items()
        },
    }


def table(results: dict[str, dict[str, Measurement]]) -> str:
    """One row per case, pass and contender."""
    rows = []
    for key, found in results.items():
        ours = next(iter(found.values())).milliseconds
        for index, (name, one) in enumerate(found.items()):
            peak = "" if one.peak_bytes is None else f"{one.peak_bytes / 2**20:.1f}"
            rows.append(
                (key if index == 0 else "", name, one.milliseconds, one.milliseconds / ours, peak)
            )
    headers = ("case", "", "ms", "over ours", "peak MiB")
    return tabulate(rows, headers=headers, floatfmt=".2f", disable_numparse=[4])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(argv)
    cases = chosen(all_cases(), options)
    if options.list:
        for case in cases:
            say(case.key)
        return 0
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    results = {}
    for case in cases:
        contenders = case.build(device)
        for name in case.passes:
            results[f"{case.key}/{name}"] = measure(
                contenders, name, device, options.runs, options.threads
            )
    if options.json:
        say(json.dumps(report(results, options)))
        return 0
    clock = "CPU time" if device.type == "cpu" and options.threads == 1 else "time"
    variant = build_info().get("cpu_capability", "pure torch")
    say(f"Median {clock} of {options.runs} runs, {options.threads} threads, kernels: {variant}")
    say(table(results))
    return 0
