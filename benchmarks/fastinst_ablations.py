#!/usr/bin/env python
"""FastInst's ablations (Tables 2 to 4) on the synthetic shapes: one training per row and seed.

It prints a table and writes one JSON file:

    python benchmarks/fastinst_ablations.py --jobs 2 --max-iter 1000
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from training_runs import Overrides, TrainingRuns, add_arguments, one_by_one, with_deviation

CONFIG = "fastinst/fastinst_tiny.py"


@dataclass(frozen=True)
class Row:
    """One row of an ablation table.

    Attributes:
        table: table of the paper.
        name: what the row changes.
        overrides: on top of `fastinst_tiny`, which has one dual-path layer.
    """

    table: str
    name: str
    overrides: Overrides = ()


ROWS = (
    Row("2", "zero queries", ("model.decoder.queries.kind=zero",)),
    Row("2", "learnable queries", ("model.decoder.queries.kind=learned",)),
    Row("2", "resized queries", ("model.decoder.queries.kind=resized",)),
    Row("2", "IA-guided queries (default)"),
    Row(
        "3",
        "pixel update only, D = 2",
        ("model.decoder.update=pixel_only", "model.decoder.num_layers=2"),
    ),
    Row(
        "3",
        "query update only, D = 2",
        ("model.decoder.update=query_only", "model.decoder.num_layers=2"),
    ),
    Row("3", "dual, query then pixel", ("model.decoder.update=query_then_pixel",)),
    Row("3", "dual, pixel then query (default)"),
    Row("4", "without GT mask guidance", ("model.gt_guidance=false",)),
    Row("4", "with GT mask guidance (default)"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, "fastinst_ablations", max_iter=1000)
    args = parser.parse_args(argv)
    runs = TrainingRuns(CONFIG, args, (row.overrides for row in ROWS))
    runs.run()
    scores = [runs.scores(row.overrides, "segm") for row in ROWS]
    runs.save([summarise(row, values) for row, values in zip(ROWS, scores)])
    sys.stdout.write(as_markdown(scores))


def summarise(row: Row, scores: Sequence[float]) -> dict[str, object]:
    """Mask AP of each seed, mean and standard deviation."""
    return {
        "table": row.table,
        "row": row.name,
        "overrides": list(row.overrides),
        "segm_AP": list(scores),
        "mean": statistics.mean(scores),
        "std": statistics.stdev(scores) if len(scores) > 1 else 0.0,
    }


def as_markdown(scores: Sequence[Sequence[float]]) -> str:
    """The rows as a Markdown table."""
    lines = ["| table | row | segm AP | seeds |", "|---|---|---|---|"]
    for row, values in zip(ROWS, scores):
        cells = (row.table, row.name, with_deviation(values), one_by_one(values))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
