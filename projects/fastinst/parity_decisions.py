"""Taking decisions that rounding leaves open as the golden run took them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

from queryseg.parity import ParityReport
from queryseg.projects.fastinst.initial_queries import InitialQueries
from queryseg.projects.fastinst.model import FastInst
from queryseg.projects.fastinst.prediction_head import Prediction

UNDECIDED = 2e-5
"""Mask logits below this are noise in float32: values reach 20, and runs differ by 4e-5."""


@contextmanager
def golden_decisions(model: FastInst, report: ParityReport, prefix: str) -> Iterator[None]:
    """Open or close single pixels of attention masks where the golden run did.

    A query looks where its mask logit is not negative. Golden data has logits of 5e-6 beside values
    of 20, so rounding decides there, differently on every machine; and one pixel moves a query's
    outputs by up to 1e-2. Golden data holds how many pixels each query was blocked from. Where ours
    differ, the undecided pixels nearest to zero follow; everything else stays. Each change is
    remarked in the report.

    Args:
        model: changed for the duration of the context.
        report: holds the golden counts and takes the remarks.
        prefix: of the run in the bundle.
    """
    seen: dict[str, Any] = {}

    def keep_queries(module: nn.Module, inputs: Any, output: InitialQueries) -> None:
        seen["queries"] = output

    def keep_prediction(module: nn.Module, inputs: Any, output: Prediction) -> None:
        seen["prediction"] = output

    def decide(index: int, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        attend = _decided(
            report,
            f"{prefix}head{index}",
            inputs[4],
            seen["prediction"],
            _order(report, prefix, seen),
        )
        return (*inputs[:4], attend)

    handles = [model.decoder.queries.register_forward_hook(keep_queries)]
    handles += [head.register_forward_hook(keep_prediction) for head in model.decoder.heads]
    for index, layer in enumerate(model.decoder.layers):
        handles.append(
            layer.register_forward_pre_hook(lambda _, inputs, index=index: decide(index, inputs))
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def golden_order(pixel_idx: np.ndarray, golden: np.ndarray) -> np.ndarray:
    """Where ours holds each golden query, by the pixel it was picked from.

    Args:
        pixel_idx: (B, Q) ours.
        golden: (B, Q) theirs.

    Returns:
        (B, Q) places in ours; a query's own place where its pixel was not picked.
    """
    order = np.tile(np.arange(golden.shape[1]), (len(golden), 1))
    for row, ours, wanted in zip(order, pixel_idx.tolist(), golden.tolist()):
        where = {pixel: place for place, pixel in enumerate(ours)}
        row[:] = [where.get(pixel, place) for place, pixel in enumerate(wanted)]
    return order


def _order(report: ParityReport, prefix: str, seen: dict[str, Any]) -> np.ndarray:
    ours = seen["queries"].pixel_idx.numpy()
    return golden_order(ours, report.golden.get(f"{prefix}selected_indices", ours))


def _decided(
    report: ParityReport, head: str, attend: Tensor, prediction: Prediction, order: np.ndarray
) -> Tensor:
    """The attention mask (B, 1, Q + N_b, S) with undecided pixels as in the golden run."""
    golden = report.golden.get(f"{head}_attn_blocked_count")
    if golden is None or golden.shape[1] != attend.shape[2]:
        return attend
    attend, changed = attend.clone(), 0
    for image, row in enumerate(order):
        for place, query in enumerate(row):
            open_pixels = attend[image, 0, query]
            missing = int(golden[image, place]) - int((~open_pixels).sum())
            logits = prediction.mask_logits[image, query].flatten()
            able = (logits.abs() < UNDECIDED) & (open_pixels if missing > 0 else ~open_pixels)
            nearest = logits.abs().masked_fill(~able, float("inf")).argsort()[: abs(missing)]
            if missing and bool(able[nearest].all()):
                open_pixels[nearest] = missing < 0
                changed += abs(missing)
    if changed:
        report.remark(f"{changed} undecided attention pixels of {head} follow the golden run")
    return attend
