"""Comparisons notice what is wrong and let pass what is right."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from queryseg.parity import ParityReport, align_instances, find_bundle

GOLDEN = {
    "values": np.array([1.0, -2.0, 0.5], dtype=np.float32),
    "counts": np.array([3, 4], dtype=np.int32),
    "names": np.array(["a", "b"]),
    "bits": np.packbits(np.array([[1] * 1500 + [0] * 100, [0] * 1600], dtype=bool), axis=1),
}


def _report() -> ParityReport:
    return ParityReport(GOLDEN)


@pytest.mark.parametrize(("error", "within"), [(0.9e-3, True), (1.1e-3, False), (np.nan, False)])
def test_values_are_held_to_their_tolerance(error: float, within: bool) -> None:
    report = _report()
    report.by_value("values", GOLDEN["values"] + np.array([0, error, 0]), 1e-3)
    comparison = report.comparisons["values"]
    assert comparison.within is within
    assert comparison.shape == (3,)
    if np.isfinite(error):
        norm = np.linalg.norm(GOLDEN["values"])
        assert comparison.max_abs == pytest.approx(error, rel=1e-3)
        assert comparison.rel_l2 == pytest.approx(error / norm, rel=1e-3)


@pytest.mark.parametrize(("factor", "within"), [(1.0009, True), (1.0011, False)])
def test_ratios_are_relative_to_each_golden_value(factor: float, within: bool) -> None:
    report = _report()
    report.by_ratio("values", GOLDEN["values"] * factor, 1e-3)
    assert report.comparisons["values"].within is within


def test_another_shape_is_never_within() -> None:
    report = _report()
    report.by_value("values", GOLDEN["values"][:2], 1e9)
    report.exactly("counts", np.array([3]))
    report.mask_bits("bits", GOLDEN["bits"][:1])
    assert not any(c.within for c in report.comparisons.values())
    assert not report.passed


def test_integers_and_words_have_to_be_equal() -> None:
    report = _report()
    report.exactly("counts", [3, 4])
    report.exactly("names", np.array(["a", "b"]))
    assert all(c.within for c in report.comparisons.values())
    report.exactly("counts", [3, 5])
    report.exactly("names", np.array(["a", "c"]))
    assert not any(c.within for c in report.comparisons.values())


@pytest.mark.parametrize(("flipped", "within"), [(1, True), (2, False)])
def test_masks_are_compared_by_their_overlap(flipped: int, within: bool) -> None:
    masks = np.unpackbits(GOLDEN["bits"], axis=1)
    masks[0, :flipped] = 0
    report = _report()
    report.mask_bits("bits", np.packbits(masks, axis=1))
    assert report.comparisons["bits"].max_abs == pytest.approx(flipped / 1500)
    assert report.comparisons["bits"].within is within


def test_arrays_left_out_fail_unless_excused() -> None:
    report = _report()
    report.by_value("values", GOLDEN["values"], 0.0)
    report.exactly("counts", GOLDEN["counts"])
    report.mask_bits("bits", GOLDEN["bits"])
    assert report.not_compared == ["names"]
    assert not report.passed
    report.excuse("names", "not made here")
    assert report.passed
    assert report.not_compared == ["names"]
    assert report.as_dict()["excused"] == {"names": "not made here"}


def test_diagnostics_inform_only() -> None:
    report = ParityReport({"values": GOLDEN["values"], "gap": np.float32(1e-6)})
    report.by_value("values", GOLDEN["values"], 0.0)
    report.diagnostic("gap", 0.5)
    assert report.passed
    assert report.comparisons["gap"].role == "diagnostic"


def test_dump_holds_our_arrays_in_the_golden_dtype() -> None:
    report = _report()
    report.by_value("values", np.zeros(3), 10.0)
    report.exactly("counts", [4, 3], dump=np.array([3, 4], dtype=np.int64))
    assert report.ours["values"].dtype == np.float32
    assert report.ours["counts"].tolist() == [3, 4]
    assert report.ours["counts"].dtype == np.int32


def test_instances_are_aligned_by_class_then_score_and_area() -> None:
    golden = {
        "scores": np.array([0.9, 0.5, 0.5, 0.0]),
        "classes": np.array([1, 2, 2, 1]),
        "area": np.array([10, 20, 90, 0]),
    }
    order = np.array([2, 0, 3, 1])
    ours = {name: values[order] for name, values in golden.items()}
    place = align_instances(golden, ours, score_tolerance=1e-5, area_tolerance=8)
    assert order[place].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="3 instances found, 4 in the golden data"):
        align_instances(
            golden,
            {name: values[:3] for name, values in ours.items()},
            score_tolerance=1e-5,
            area_tolerance=8,
        )


def test_unknown_bundle_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"what.npz is no golden bundle; known names: .*golden_eval"
    ):
        find_bundle(Path("what.npz"), nn.Linear(1, 1))
