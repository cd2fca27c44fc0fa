"""`python -m queryseg.data.moving_shapes`: write the synthetic videos."""

import argparse
import sys
from collections.abc import Sequence

from queryseg.data.moving_shapes.spec import MovingShapesSpec
from queryseg.data.moving_shapes.writer import write_moving_shapes
from queryseg.data.shapes.__main__ import add_scene_flags, scene_options
from queryseg.tools.console import say


def build_parser() -> argparse.ArgumentParser:
    """The command line of the generator; defaults are those of `MovingShapesSpec`."""
    spec = MovingShapesSpec()
    parser = argparse.ArgumentParser(
        prog="python -m queryseg.data.moving_shapes",
        description="Write a deterministic synthetic set of videos in YouTube-VIS format.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", default="datasets/moving_shapes", help="folder to write")
    parser.add_argument("--train", type=int, default=spec.train, help="training videos")
    parser.add_argument("--val", type=int, default=spec.val, help="validation videos")
    parser.add_argument("--frames", type=int, default=spec.frames, help="frames of a video")
    add_scene_flags(parser, spec)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags and write the set; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        spec = MovingShapesSpec(frames=args.frames, **scene_options(args))
        written = write_moving_shapes(args.output, spec)
    except (ValueError, FileExistsError) as error:
        say(f"error: {error}")
        return 2
    if written:
        say(f"wrote {spec.train} + {spec.val} videos to {args.output}")
    else:
        say(f"{args.output} already holds this synthetic set")
    return 0


if __name__ == "__main__":
    sys.exit(main())
