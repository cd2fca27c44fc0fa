"""Bundles that are described but not stored: the same arrays, computed again without our code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from scipy.ndimage import binary_dilation, binary_erosion
from torch import nn

from queryseg.engine import load_config
from queryseg.parity import Bundle, ParityReport, find_bundle

GOLDEN = Path(__file__).parents[2] / "golden" / "mask_transfiner"
THRESHOLDS = {28: 1e-6, 56: 0.125, 112: 0.8}
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.device("meta"):  # no comparison here looks at weights
        return instantiate(load_config("mask_transfiner/mask_transfiner_r50_1x.py").model)


def enlarged(maps: np.ndarray, size: int) -> np.ndarray:
    """(N, h, h) to (N, size, size), bilinear with aligned corners, one axis after the other."""
    there = np.arange(maps.shape[-1])
    at = np.linspace(0, maps.shape[-1] - 1, size)
    rows = np.apply_along_axis(lambda line: np.interp(at, there, line), 2, maps)
    return np.apply_along_axis(lambda line: np.interp(at, there, line), 1, rows)


def chosen_cells(incoherence: np.ndarray) -> dict[int, np.ndarray]:
    """(N, size, size) bool of each grid: the probabilities repeated, from the threshold on."""
    return {
        size: (incoherence >= threshold).repeat(size // 28, 1).repeat(size // 28, 2)
        for size, threshold in THRESHOLDS.items()
    }


def propagated(given: dict[str, np.ndarray]) -> np.ndarray:
    """The release's propagation as the fact sheet words it; masks (N, 112, 112)."""
    boxes = np.arange(len(given["pred_classes"]))
    logits = given["coarse_logits"].astype(np.float64)[boxes, given["pred_classes"].astype(int)]
    masks = 1 / (1 + np.exp(-logits))
    cells = chosen_cells(given["incoherence"][:, 0])
    labels = {size: np.zeros(mask.shape) for size, mask in cells.items()}
    first = 0
    for box in boxes:
        for size, mask in cells.items():
            last = first + mask[box].sum()
            labels[size][box][mask[box]] = given["node_labels"][first:last]
            first = last
    for size, mask in cells.items():
        if size == 56 and not mask.any():
            continue  # of the batch, not of the box
        masks = np.where(mask, labels[size], enlarged(masks, size))
    return masks


def compared(bundle: Bundle, model: nn.Module, given: dict[str, np.ndarray]) -> ParityReport:
    """What the bundle says of arrays; it needs no weights."""
    report = ParityReport(given)
    bundle.run(model, report)
    return report


def make_case(levels: tuple[float, ...]) -> dict[str, np.ndarray]:
    """A propagation bundle; box k has probabilities up to the k-th level of certainty."""
    draw = np.random.RandomState(0)
    count = len(levels)
    incoherence = draw.rand(count, 1, 28, 28) * np.array(levels).reshape(-1, 1, 1, 1)
    incoherence[draw.rand(*incoherence.shape) < 0.7] = 0
    cells = chosen_cells(incoherence[:, 0])
    n_per_box = sum(mask.sum((1, 2)) for mask in cells.values())
    given = {
        "coarse_logits": 3 * draw.randn(count, 3, 28, 28),
        "pred_classes": np.arange(count) % 3,
        "incoherence": incoherence,
        "node_labels": draw.rand(int(np.sum(n_per_box))),
        "n_per_box": n_per_box,
    }
    given["pred_masks"] = propagated(given)[:, None]
    return given


def test_the_propagation_written_out_again_is_that_of_the_release() -> None:
    with np.load(GOLDEN / "propagation_two_boxes.npz") as bundle:
        given = {name: bundle[name] for name in bundle.files}
    # The golden run rounds to float32: 1.7e-6 measured.
    np.testing.assert_allclose(propagated(given)[:, None], given["pred_masks"], atol=5e-6)


@pytest.mark.parametrize(
    ("case", "levels"),
    [
        ("only_level28", (0.12, 0.1)),
        ("no_nodes", (0.0, 0.0)),
        ("two_boxes", (0.7, 0.12, 0.0)),  # 56, but no 112; 28 alone; nothing
        ("two_boxes", (1.0, 0.0)),
    ],
)
def test_labels_are_propagated_as_in_the_release(
    case: str, levels: tuple[float, ...], model: nn.Module
) -> None:
    given = make_case(levels)
    bundle = find_bundle(Path(f"propagation_{case}.npz"), model)
    report = compared(bundle, model, given)
    assert report.passed, report.failures()
    assert {"n_per_box", "pred_masks"} <= report.comparisons.keys()
    spoilt = given["pred_masks"].copy()
    spoilt[-1, 0, 50, 50] += 2e-4
    assert not compared(bundle, model, {**given, "pred_masks": spoilt}).passed


def test_outlines_of_the_bundle_are_those_of_morphology(model: nn.Module) -> None:
    y, x = np.mgrid[:28, :28]
    disc, wedge = (y - 12) ** 2 + (x - 15) ** 2 < 90, (x > y) & (x > 20)
    masks = np.stack([disc, wedge, disc & (x < 17)])
    contour = np.stack(
        [
            binary_dilation(m, CROSS, border_value=0) != binary_erosion(m, CROSS, border_value=1)
            for m in masks
        ]
    )
    given = {"masks": masks.astype(np.uint8), "contour": contour, "interior": masks.astype(float)}
    bundle = find_bundle(Path("gt_boundary28.npz"), model)
    report = compared(bundle, model, given)
    assert report.passed, report.failures()
    assert report.not_compared == ["interior"]
    given["contour"] = contour ^ (y == 3)
    assert not compared(bundle, model, given).passed
