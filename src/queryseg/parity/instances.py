"""Bringing detected instances into the order of golden ones."""

import numpy as np
from scipy.optimize import linear_sum_assignment

OTHER_CLASS = 1e6
"""Cost of pairing two classes; above every difference of scores and areas."""


def align_instances(
    golden: dict[str, np.ndarray],
    ours: dict[str, np.ndarray],
    *,
    score_tolerance: float,
    area_tolerance: float,
) -> np.ndarray:
    """Which of our instances stands for each golden one: same class, nearest score and area.

    Args:
        golden: `scores`, `classes` and `area`, each (n,).
        ours: the same of as many instances, in any order.
        score_tolerance: unit in which score differences are weighed.
        area_tolerance: unit in which area differences are weighed.

    Returns:
        (n,) indices into ours.

    Raises:
        ValueError: the numbers of instances differ.
    """
    if len(golden["scores"]) != len(ours["scores"]):
        raise ValueError(
            f"{len(ours['scores'])} instances found, {len(golden['scores'])} in the golden data"
        )

    def gap(field: str) -> np.ndarray:
        return np.abs(golden[field][:, None].astype(np.float64) - ours[field][None])

    cost = gap("scores") / score_tolerance + gap("area") / area_tolerance
    cost += OTHER_CLASS * (gap("classes") > 0)
    return linear_sum_assignment(cost)[1]
