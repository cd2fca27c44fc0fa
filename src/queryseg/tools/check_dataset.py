"""`python -m queryseg.tools.check_dataset`: what a data set holds, and what is wrong.

Exit code 0: ready for training (what is handled is only reported). 1: some annotations would be
left out, or training could not start. 2: the json cannot be read at all.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from tabulate import tabulate

from queryseg.data.checks import DatasetReport, check_dataset
from queryseg.data.problems import Effect, Problem
from queryseg.tools.console import say

ANNOTATIONS = ("annotation", "annotations")
HEADINGS = {
    Effect.FATAL: "Training cannot start:",
    Effect.DROPPED: "Left out of training:",
    Effect.HANDLED: "Handled, nothing to do:",
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m queryseg.tools.check_dataset",
        description="Check a data set before training on it.",
    )
    parser.add_argument("--json", required=True, help="annotations in COCO or YouTube-VIS format")
    parser.add_argument("--images", required=True, help="folder of the images or frames")
    parser.add_argument(
        "--quick", action="store_true", help="do not open the images, only look for the files"
    )
    parser.add_argument(
        "--max-lines", type=int, default=20, help="most lines printed for a kind of problem"
    )
    return parser


def describe(report: DatasetReport, max_lines: int) -> str:
    """The report as text.

    Args:
        report: what was found.
        max_lines: most lines for a kind of problem; the rest is counted.
    """
    parts = [_overview(report), _histogram(report)]
    for effect in Effect:
        problems = report.with_effect(effect)
        if problems:
            parts.append("\n".join([HEADINGS[effect], *_lines(problems, max_lines)]))
    parts.append(_verdict(report))
    return "\n\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Check a set and print the report; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        report = check_dataset(args.json, args.images, open_images=not args.quick)
    except (FileNotFoundError, ValueError) as error:
        say(f"error: {error}")
        return 2
    say(describe(report, args.max_lines))
    bad = report.with_effect(Effect.FATAL) or report.with_effect(Effect.DROPPED)
    return 1 if bad or report.num_objects == 0 else 0


def _overview(report: DatasetReport) -> str:
    heights, widths = zip(*report.image_sizes) if report.image_sizes else ((0,), (0,))
    areas = ", ".join(f"{n} {size}" for size, n in report.area_counts.items())
    images, annotations, objects = (
        ("frames", "tracks", "usable masks")
        if report.num_videos
        else ("images", "annotations", "usable objects")
    )
    rows = [
        *([("videos", report.num_videos)] if report.num_videos else []),
        (images, report.num_images),
        ("widths x heights", f"{min(widths)}..{max(widths)} x {min(heights)}..{max(heights)}"),
        (annotations, report.num_annotations),
        (objects, f"{report.num_objects} ({areas})"),
        ("crowds", report.num_crowds),
    ]
    return f"{report.json_file}\n" + tabulate(rows, tablefmt="plain", disable_numparse=True)


def _histogram(report: DatasetReport) -> str:
    rows = [(c.category_id, c.name, c.objects, c.images) for c in report.classes]
    counted = ("masks", "frames") if report.num_videos else ("objects", "images")
    return tabulate(rows, headers=("category", "name", *counted), tablefmt="simple")


def _lines(problems: Sequence[Problem], max_lines: int) -> list[str]:
    counts = Counter(problem.kind for problem in problems)
    lines = []
    for kind, count in counts.items():
        lines.append(f"  {kind} ({count})")
        of_kind = [problem for problem in problems if problem.kind == kind]
        lines += [f"    {problem}" for problem in of_kind[:max_lines]]
        if count > max_lines:
            lines.append(f"    ... and {count - max_lines} more (--max-lines {count} shows all)")
    return lines


def _verdict(report: DatasetReport) -> str:
    fatal = len(report.with_effect(Effect.FATAL))
    dropped = len(report.with_effect(Effect.DROPPED))
    if fatal:
        return f"NOT READY: {fatal} {'problem stops' if fatal == 1 else 'problems stop'} training."
    if report.num_objects == 0:
        return "NOT READY: there is no usable object."
    if dropped:
        one, several = ("mask or track", "masks or tracks") if report.num_videos else ANNOTATIONS
        noun = one if dropped == 1 else several
        return f"READY, but {dropped} {noun} would be left out."
    return "READY for training."


if __name__ == "__main__":
    sys.exit(main())
