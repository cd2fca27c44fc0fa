"""A number for each category as a table of a few columns, for logs."""

import itertools
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

PAIRS_IN_A_ROW = 3


def category_table(entries: Sequence[tuple[str, float]], header: str, **style: Any) -> str:
    """Lay out (category, number) pairs row by row.

    Args:
        entries: the pairs.
        header: what the numbers are.
        **style: more arguments of `tabulate`.
    """
    pairs = max(min(PAIRS_IN_A_ROW, len(entries)), 1)
    cells = list(itertools.chain.from_iterable(entries))
    rows = [cells[start : start + 2 * pairs] for start in range(0, len(cells), 2 * pairs)]
    headers = ["category", header] * pairs
    return tabulate(rows, headers=headers, tablefmt="pipe", numalign="left", **style)
