"""Everything that needs a GPU, in one command: `make gpu-check`.

Builds the kernels for the GPU at hand, runs the tests of every operator and the golden bundles of
every method on it, trains and evaluates a tiny model in three precisions, and measures the
operators. Each step writes a log; the summary, with the machine and the date, goes to
`summary.json`, the operators' figures to `ops.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from queryseg.tools.console import say
from queryseg.tools.op_benchmark.machine import describe_machine

ROOT = Path(__file__).parents[1]
CONFIG = "configs/fastinst/fastinst_tiny.py"
PRECISIONS = {
    "float32": [],
    "float16": ["train.amp.enabled=true", "train.amp.dtype=float16"],
    "bfloat16": ["train.amp.enabled=true", "train.amp.dtype=bfloat16"],
}
LEAST_AP = 45.0  # of the tiny model's masks; it reaches over 60 in float32 on a CPU


@dataclass
class Step:
    """One command of the check.

    Attributes:
        name: as the summary and the log file have it.
        command: words behind the Python interpreter.
        environment: variables on top of the process's own.
        results: file with the step's evaluation, where it has one.
        least_ap: mask AP that the evaluation must reach.
    """

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    results: Path | None = None
    least_ap: float = 0.0


def plan(device: str, output: Path, iterations: int, runs: int) -> list[Step]:
    """The steps of a check.

    Args:
        device: "cuda", or "cpu" to try the check itself, without float16, where there is no GPU.
        output: folder for everything the steps write.
        iterations: training steps of the tiny model; 0: as its config says, and only then its AP
            is judged.
        runs: timed runs of each contender of the operator benchmark.
    """
    needed = {"QUERYSEG_REQUIRE_EXT": "1", **({"FORCE_CUDA": "1"} if device == "cuda" else {})}
    install = "-m pip install --quiet --no-deps --no-build-isolation --editable ."
    shapes = output / "shapes"
    steps = [
        Step("build", install.split(), needed),
        Step("operator tests", ["-m", "pytest", "-q", "tests/ops", "--device", device]),
        Step(
            "golden bundles",
            ["-m", "pytest", "-q", "tests/projects", "-k", "parity", "--device", device],
        ),
        Step("shapes", ["-m", "queryseg.data.shapes", "--output", str(shapes)]),
    ]
    for name, overrides in PRECISIONS.items():
        if device == "cpu" and name == "float16":
            continue  # 20 steps had not ended after 40 minutes on two cores
        folder = output / name
        length = [f"train.max_iter={iterations}"] if iterations else []
        words = ["train_net.py", "--config-file", CONFIG, f"train.device={device}"]
        words += [f"train.output_dir={folder}", *overrides, *length]
        steps.append(
            Step(
                f"train {name}",
                words,
                {"DETECTRON2_DATASETS": str(output)},
                folder / "results.json",
                0.0 if iterations else LEAST_AP,
            )
        )
    measure = ["benchmarks/ops.py", "--device", device, "--runs", str(runs)]
    steps.append(Step("operator benchmark", [*measure, "--output", str(output / "ops.json")]))
    return steps


def run(step: Step, folder: Path) -> dict[str, Any]:
    """Run a step; its output goes to a log file.

    Returns:
        `passed`, `seconds`, `log`, and `ap` where the step evaluates a model.
    """
    log = folder / f"{step.name.replace(' ', '_')}.log"
    begin = time.monotonic()
    with log.open("w") as stream:
        code = subprocess.run(
            [sys.executable, *step.command],
            cwd=ROOT,
            env={**os.environ, **step.environment},
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    found: dict[str, Any] = {"passed": code == 0, "seconds": round(time.monotonic() - begin, 1)}
    if step.results is not None and code == 0:
        found["ap"] = mask_ap(step.results)
        found["passed"] = found["ap"] >= step.least_ap  # never if it is NaN
    return {**found, "log": str(log)}


def machine_after_the_build(device: str) -> dict[str, Any]:
    """`describe_machine` of a new process: this one loaded the kernels before they were built."""
    module, name = describe_machine.__module__, describe_machine.__name__
    words = f"import json; from {module} import {name}; print(json.dumps({name}({device!r})))"
    answer = subprocess.run(
        [sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def mask_ap(results: Path) -> float:
    """The segm AP in the `results.json` of a training run."""
    return float(json.loads(results.read_text())["segm"]["AP"])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check the project on a CUDA GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--output", type=Path, default=ROOT / "output/gpu_check")
    parser.add_argument(
        "--iterations", type=int, default=0, help="training steps (0: the config's, AP judged)"
    )
    parser.add_argument("--runs", type=int, default=50, help="timed runs of each operator")
    parser.add_argument("--only", action="append", help="only this step (may be repeated)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check; returns the exit code."""
    options = parse(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        say(f"gpu-check: no CUDA GPU: torch {torch.__version__} sees none, so nothing was run")
        return 1
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    steps = plan(options.device, output, options.iterations, options.runs)
    summary: dict[str, Any] = {"steps": {}}
    for step in steps:
        if options.only and step.name not in options.only:
            continue
        found = run(step, output)
        if "machine" not in summary:
            summary["machine"] = machine_after_the_build(options.device)
        summary["steps"][step.name] = found
        ap = f", {found['ap']:.1f} segm AP" if "ap" in found else ""
        verdict = "passed" if found["passed"] else f"FAILED, see {found['log']}"
        say(f"{step.name:<20} {verdict} ({found['seconds']:.0f} s{ap})")
        (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return 0 if all(found["passed"] for found in summary["steps"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
