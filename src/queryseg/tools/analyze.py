"""`python -m queryseg.tools.analyze`: parameters and FLOPs of a model, part by part.

A method may add a table of its own: `queryseg.projects.<method>.analysis` gives the name of an
option as `OPTION` and its `HELP`, the table `as_text()`, and the same `as_data()` for JSON.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from detectron2.config import instantiate
from tabulate import tabulate
from torch import nn

from queryseg.engine import apply_overrides, load_config
from queryseg.project_modules import project_modules
from queryseg.tools.benchmark import parse_size
from queryseg.tools.console import run_tool, say
from queryseg.tools.flop_counter import count_flops

SHORT_SIDE = 640
"""Shorter side of the inputs that a number of tokens is interpolated between."""
DIVISOR = 32
STRIDE = 8


@dataclass(frozen=True)
class ModelPart:
    """One module of the model.

    Attributes:
        name: dotted name; "" is the whole model.
        parameters: number of trainable parameters in it.
        flops: multiply-adds of one forward pass of one image.
    """

    name: str
    parameters: int
    flops: float


def build_parser() -> argparse.ArgumentParser:
    """The command line of the tool."""
    parser = argparse.ArgumentParser(
        prog="python -m queryseg.tools.analyze",
        description="Count trainable parameters and multiply-adds (the FLOPs of the papers).",
    )
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--config-file", help="config file, or an installed one")
    for table in project_modules("analysis"):
        subject.add_argument(
            f"--{table.OPTION}", dest="table", action="store_const", const=table, help=table.HELP
        )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", default="640x832", help="HEIGHTxWIDTH of the input (640x832)")
    size.add_argument(
        "--stride8-tokens",
        type=float,
        metavar="N",
        help="the input whose map at stride 8 has N pixels, between two of height 640",
    )
    parser.add_argument("--depth", type=int, default=1, help="levels of modules (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="config overrides")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    args = build_parser().parse_intermixed_args(argv)
    if args.table is not None:
        say(json.dumps(args.table.as_data()) if args.json else args.table.as_text())
        return 0
    model = instantiate(apply_overrides(load_config(args.config_file), args.opts).model)
    if args.stride8_tokens is None:
        flops = flops_at(model, parse_size(args.size))
        where = args.size
    else:
        flops = flops_at_tokens(model, args.stride8_tokens)
        where = f"{args.stride8_tokens:g} tokens at stride {STRIDE}"
    parts = model_parts(model, flops, args.depth)
    if args.json:
        say(json.dumps({"input": where, "parts": [asdict(part) for part in parts]}))
    else:
        say(as_table(parts, where))
    return 0


def flops_at(model: nn.Module, size: tuple[int, int]) -> dict[str, float]:
    """Multiply-adds of each module on one image (height, width)."""
    model.eval()
    inputs = {
        "image": torch.zeros(3, *size, dtype=torch.uint8),
        "height": size[0],
        "width": size[1],
    }
    counts = count_flops(model, lambda: model([inputs]))
    return {name: float(count) for name, count in counts.items()}


def flops_at_tokens(model: nn.Module, tokens: float) -> dict[str, float]:
    """Multiply-adds where the map at stride 8 has so many pixels.

    Papers average over images of all shapes. With a fixed number of queries the count is linear in
    the number of pixels, so it is interpolated between the two nearest sizes of height 640.

    Args:
        model: any model of the package.
        tokens: pixels of the map at stride 8.
    """
    width = tokens * STRIDE * STRIDE / SHORT_SIDE
    below = max(int(width // DIVISOR) * DIVISOR, DIVISOR)
    above = below + DIVISOR
    share = (width - below) / DIVISOR
    low, high = (Counter(flops_at(model, (SHORT_SIDE, side))) for side in (below, above))
    return {name: low[name] + share * (high[name] - low[name]) for name in high}


def model_parts(model: nn.Module, flops: dict[str, float], depth: int) -> list[ModelPart]:
    """The model and its modules down to a depth, where they hold parameters or compute."""
    parts = []
    for name, module in model.named_modules():
        if name and name.count(".") >= depth:
            continue
        parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        if parameters or flops.get(name):
            parts.append(ModelPart(name, parameters, flops.get(name, 0.0)))
    return parts


def as_table(parts: Sequence[ModelPart], where: str) -> str:
    """The parts as a table, in millions of parameters and billions of multiply-adds."""
    rows = [
        (part.name or "whole model", f"{part.parameters / 1e6:.3f}", f"{part.flops / 1e9:.2f}")
        for part in parts
    ]
    headers = ("module", "parameters (M)", f"GFLOPs at {where}")
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return f"{table}\nFLOPs are multiply-adds of one image."


if __name__ == "__main__":
    run_tool(main)
