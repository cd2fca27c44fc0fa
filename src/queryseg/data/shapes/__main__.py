"""`python -m queryseg.data.shapes`: write the synthetic set."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from queryseg.data.shapes.outlines import CLASS_NAMES
from queryseg.data.shapes.spec import DIFFICULTIES, ShapesSpec
from queryseg.data.shapes.writer import write_shapes
from queryseg.tools.console import say


def parse_size(text: str) -> tuple[int, int]:
    """`"128"` or `"96x160"` (height x width) as (height, width)."""
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"expected SIDE or HEIGHTxWIDTH, got {text!r}")
    return sides[0], sides[-1]


def add_scene_flags(parser: argparse.ArgumentParser, spec: ShapesSpec) -> None:
    """Add what still images and videos have in common; defaults are those of `spec`."""
    parser.add_argument(
        "--size",
        type=parse_size,
        default=f"{spec.height}x{spec.width}",
        help="SIDE or HEIGHTxWIDTH in pixels",
    )
    parser.add_argument(
        "--difficulty",
        choices=DIFFICULTIES,
        default=spec.difficulty,
        help="colour: each class has its own hue; shape: only the outline tells the class",
    )
    parser.add_argument("--seed", type=int, default=spec.seed)
    parser.add_argument(
        "--objects",
        type=int,
        nargs=2,
        metavar=("MIN", "MAX"),
        default=(spec.min_objects, spec.max_objects),
        help="objects of an image",
    )
    parser.add_argument(
        "--radius",
        type=float,
        nargs=2,
        metavar=("MIN", "MAX"),
        default=(spec.min_radius, spec.max_radius),
        help="circumradius in pixels of an image whose shorter side is 128",
    )
    parser.add_argument(
        "--classes", nargs="+", choices=CLASS_NAMES, default=spec.classes, help="shapes to draw"
    )


def scene_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `ShapesSpec` that the flags stand for."""
    return {
        "train": args.train,
        "val": args.val,
        "height": args.size[0],
        "width": args.size[1],
        "difficulty": args.difficulty,
        "seed": args.seed,
        "min_objects": args.objects[0],
        "max_objects": args.objects[1],
        "min_radius": args.radius[0],
        "max_radius": args.radius[1],
        "classes": tuple(args.classes),
    }


def build_parser() -> argparse.ArgumentParser:
    """The command line of the generator; defaults are those of `ShapesSpec`."""
    spec = ShapesSpec()
    parser = argparse.ArgumentParser(
        prog="python -m queryseg.data.shapes",
        description="Write a deterministic synthetic instance-segmentation set in COCO format.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", default="datasets/shapes", help="folder to write")
    parser.add_argument("--train", type=int, default=spec.train, help="training images")
    parser.add_argument("--val", type=int, default=spec.val, help="validation images")
    add_scene_flags(parser, spec)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and write the set; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        spec = ShapesSpec(**scene_options(args))
        written = write_shapes(args.output, spec)
    except (ValueError, FileExistsError) as error:
        say(f"error: {error}")
        return 2
    if written:
        say(f"wrote {spec.train} + {spec.val} images to {args.output}")
    else:
        say(f"{args.output} already holds this synthetic set")
    return 0


if __name__ == "__main__":
    sys.exit(main())
