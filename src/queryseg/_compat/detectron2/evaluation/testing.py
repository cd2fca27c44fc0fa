"""Results of an evaluation: for logs, for a check against expected numbers, flat."""

import logging
import math
import pprint
import sys
from collections.abc import Mapping
from typing import Any

_logger = logging.getLogger(__name__)


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Log the main metrics in lines that start with "copypaste:", for scripts and spreadsheets.

    Args:
        results: from task to its metrics; those of single categories ("AP-cat") are left out.
    """
    assert isinstance(results, Mapping) or not len(results), results
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            _logger.info(f"copypaste: {task}={metrics}")
            continue
        main = {name: value for name, value in metrics.items() if "-" not in name}
        _logger.info(f"copypaste: Task: {task}")
        _logger.info("copypaste: " + ",".join(main))
        _logger.info("copypaste: " + ",".join(f"{value:.4f}" for value in main.values()))


def verify_results(cfg: Any, results: Mapping[str, Mapping[str, float]]) -> bool:
    """Compare results with `cfg.TEST.EXPECTED_RESULTS`, entries (task, metric, value, tolerance).

    Returns:
        True; a result that is absent, not finite or too far off ends the program.
    """
    expected_results = cfg.TEST.EXPECTED_RESULTS
    if not len(expected_results):
        return True
    for task, metric, expected, tolerance in expected_results:
        actual = results[task].get(metric, math.nan)
        # Written so that a NaN on the left does not pass.
        if not abs(actual - expected) <= tolerance:
            _logger.error("The results are not the expected ones.")
            _logger.error(f"Expected: {expected_results}")
            _logger.error(f"Got: {pprint.pformat(results)}")
            sys.exit(1)
    _logger.info("The results are the expected ones.")
    return True


def flatten_results_dict(results: Mapping[str, Any]) -> dict[str, Any]:
    """Nested results as one dict: `{"bbox": {"AP": 1}}` becomes `{"bbox/AP": 1}`."""
    flat = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            inner = flatten_results_dict(value)
            flat |= {f"{key}/{inner_key}": number for inner_key, number in inner.items()}
        else:
            flat[key] = value
    return flat
