"""Compare a model with golden data of its official implementation.

Prints one JSON object on stdout; logs go to stderr. The exit code is 0 only if every output of the
bundle is within its tolerance.
"""

import argparse
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate

from queryseg.engine.config import apply_overrides, load_config
from queryseg.parity import ParityReport, find_bundle
from queryseg.tools.console import ToolError, run_tool, say

logger = logging.getLogger("queryseg.parity")


def compare(
    config_file: str | Path,
    golden_file: str | Path,
    overrides: Sequence[str] = (),
    dtype: torch.dtype = torch.float64,
) -> ParityReport:
    """Build a model, give it the deterministic weights and compare it with a golden bundle.

    Args:
        config_file: LazyConfig of the model that the bundle was made with.
        golden_file: `.npz` bundle, or `.json` of numbers; its name tells what it holds.
        overrides: `key=value` changes to the config.
        dtype: in which the model runs.

    Raises:
        ToolError: the file name is none of a golden bundle.
        FileNotFoundError: there is no such bundle file.
    """
    golden_file = Path(golden_file)
    if not golden_file.is_file():
        raise FileNotFoundError(f"there is no golden bundle {golden_file}")
    cfg = apply_overrides(load_config(config_file), overrides)
    model = instantiate(cfg.model)
    golden = read_golden(golden_file)
    try:
        bundle = find_bundle(golden_file, model)
    except ValueError as error:
        raise ToolError(str(error)) from error
    return bundle.compare(model, golden, dtype)


def read_golden(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a bundle; in a `.json` bundle null stands for "nothing", an empty array.

    Raises:
        ToolError: a JSON file that is no object of numbers.
    """
    if path.suffix != ".json":
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    try:
        numbers = json.loads(path.read_text())
        return {
            name: np.zeros(0) if number is None else np.asarray(float(number))
            for name, number in numbers.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise ToolError(f"{path} is no JSON object of numbers: {error}") from error


def as_json(report: ParityReport) -> str:
    """The report as strict JSON: what is not finite becomes null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(entry) for key, entry in value.items()}
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    return json.dumps(finite(report.as_dict()), indent=1)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m queryseg.tools.parity", description=__doc__)
    parser.add_argument("--config-file", required=True, help="config of the bundle's model")
    parser.add_argument("--golden", required=True, type=Path, help="golden bundle, .npz or .json")
    parser.add_argument("--dump", type=Path, help="write our arrays to this .npz")
    parser.add_argument(
        "--dtype",
        choices=("float64", "float32"),
        default="float64",
        help="float32 is what users run, and takes close decisions differently on some machines",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config overrides")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_arguments(arguments)
    report = compare(args.config_file, args.golden, args.overrides, getattr(torch, args.dtype))
    for line in report.failures():
        logger.warning("%s", line)
    if args.dump is not None:
        np.savez_compressed(args.dump, allow_pickle=False, **report.ours)
    say(as_json(report))
    return 0 if report.passed else 1


if __name__ == "__main__":
    run_tool(main)
