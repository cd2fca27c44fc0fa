"""`python -m queryseg.tools.convert`: an official checkpoint to ours, or back."""

import argparse
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from torch import Tensor, nn

from queryseg.checkpoint import Layout, LoadReport, load_into, open_checkpoint
from queryseg.checkpoint.atomic_file import write_atomically
from queryseg.checkpoint.registry import known_layouts
from queryseg.checkpoint.stamp import STAMP_KEY, make_stamp
from queryseg.class_names import dataset_class_names
from queryseg.engine import apply_overrides, load_config
from queryseg.tools.console import ToolError, run_tool, say

HASH_LENGTH = 8


def build_parser() -> argparse.ArgumentParser:
    """The command line of the converter."""
    parser = argparse.ArgumentParser(
        prog="python -m queryseg.tools.convert",
        description="Read any checkpoint that fits a config, say what matched, and write it under "
        "QuerySeg's names as <config>_<hash>.pth. What it is, is told by its content.",
    )
    parser.add_argument("--input", required=True, help="checkpoint file or zoo://<name>")
    parser.add_argument("--config-file", required=True, help="config file, or an installed one")
    parser.add_argument("--output", default=".", help="folder (default: here)")
    parser.add_argument("--to-official", action="store_true", help="write the official names")
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="accept a file that fills a part of the model, and write that part",
    )
    parser.add_argument("--report", metavar="FILE", help="write the load report as JSON")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the converter; returns the exit code."""
    args = build_parser().parse_intermixed_args(argv)
    cfg = apply_overrides(load_config(args.config_file), args.opts)
    model = instantiate(cfg.model)
    contents = open_checkpoint(args.input)
    partial = args.allow_partial
    report = load_into(model, contents, allow_partial=partial, complete=not partial)
    say(report)
    if args.report:
        Path(args.report).write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    state, name = _loaded(model, report), Path(args.config_file).stem
    if args.to_official:
        data, name = {"model": to_official(state)}, f"{name}_official"
    else:
        class_names = contents.class_names or dataset_class_names(cfg) or None
        data = {"model": state, STAMP_KEY: make_stamp(model, class_names)}
    say(f"Wrote {write_hashed(data, Path(args.output), name)}")
    return 0


def to_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename our parameters by the layout that knows most of them.

    Args:
        state: our name -> tensor.

    Returns:
        Official name -> the same tensors.

    Raises:
        ToolError: no layout has a name for every parameter.
    """

    def unnamed(layout: Layout) -> list[str]:
        return [name for name in state if layout.to_official(name) is None]

    layout = min(known_layouts(), key=lambda known: len(unnamed(known)), default=None)
    if layout is None or unnamed(layout):
        example = f" (its nearest, {layout.name}, lacks {unnamed(layout)[0]})" if layout else ""
        raise ToolError(f"there is no official layout for this model{example}")
    return layout.convert_back(state)


def write_hashed(data: dict[str, Any], folder: Path, name: str) -> Path:
    """Write a checkpoint named after its content: `<name>_<first 8 digits of its sha256>.pth`."""
    buffer = io.BytesIO()
    torch.save(data, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:HASH_LENGTH]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}_{digest}.pth"
    write_atomically(file, lambda stream: stream.write(buffer.getbuffer()))
    return file


def _loaded(model: nn.Module, report: LoadReport) -> dict[str, Tensor]:
    """The model's parameters without those that are still as initialised."""
    absent = {*report.missing, *(entry.name for entry in report.reshaped)}
    if report.class_head:
        absent.update(report.class_head.names)
    state = model.state_dict()
    return {n: v for n, v in state.items() if n not in absent and n.startswith(report.covers)}


if __name__ == "__main__":
    run_tool(main)
