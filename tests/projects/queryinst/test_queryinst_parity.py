"""QueryInst against the golden data of the official release, through the parity bundles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from queryseg.engine import load_config
from queryseg.parity import ParityReport, find_bundle
from queryseg.parity.fill import KeyReport, fill_by_official_names
from queryseg.projects.queryinst.convert import QUERYINST
from queryseg.projects.queryinst.model import QueryInst
from queryseg.projects.queryinst.parity_inputs import golden_weights

GOLDEN = Path(__file__).parents[2] / "golden" / "queryinst"


class Filled:
    """The model under the golden weights, filled once for all bundles."""

    def __init__(self) -> None:
        self.model: QueryInst = instantiate(load_config("queryinst/queryinst_r50_100q_3x.py").model)
        self.keys: KeyReport = fill_by_official_names(self.model, QUERYINST, golden_weights)
        self.model.double()

    def compare(self, name: str) -> ParityReport:
        """Run one bundle; the weights and buffers are what they were afterwards."""
        path = GOLDEN / f"{name}.npz"
        with np.load(path) as stored:
            report = ParityReport({key: stored[key] for key in stored.files})
        buffers = {key: value.clone() for key, value in self.model.named_buffers()}
        find_bundle(path, self.model).run(self.model, report)
        for key, value in self.model.named_buffers():
            value.copy_(buffers[key])
        self.model.zero_grad()
        return report


@pytest.fixture(scope="module")
def filled() -> Filled:
    return Filled()


def test_all_weights_have_official_names_and_the_official_number(filled: Filled) -> None:
    assert not filled.keys.missing
    assert not filled.keys.unexpected
    assert len(filled.keys.matched) == 804
    assert sum(p.numel() for p in filled.model.parameters()) == 172_694_952


def test_every_stage_equals_the_release(filled: Filled) -> None:
    report = filled.compare("head_r50_100q")
    assert report.failures() == []
    assert report.passed
    assert len(report.comparisons) == len(report.golden) == 53
    # Measured: logits 7e-7, boxes 7e-5 of 840 pixels, masks 3e-8: the rounding of the golden data.
    for name, bound in (("s5_cls", 3e-6), ("s5_boxes", 2e-4), ("s5_mask_sel_cls0_17_79", 2e-7)):
        comparison = report.comparisons[name]
        assert comparison.max_abs is not None and comparison.max_abs < bound
        assert comparison.rel_l2 is not None and comparison.rel_l2 < 1e-6


def test_losses_matchings_mask_targets_and_gradients_equal_the_release(filled: Filled) -> None:
    report = filled.compare("loss_r50_100q_train")
    assert report.failures() == []
    assert report.passed
    assert len(report.golden["grad_norm_names"]) == 398
    # Measured: losses 1e-8, gradients 1.2e-8, relative.
    for name in ("loss_values", "grad_norms"):
        comparison = report.comparisons[name]
        assert comparison.max_abs is not None and comparison.max_abs < 1e-6


def test_detections_of_an_image_equal_the_release(filled: Filled) -> None:
    report = filled.compare("full_r50_100q")
    assert report.failures() == []
    assert report.passed
    detections = report.comparisons["a_det_x1y1x2y2_score_label"]
    assert detections.max_abs is not None and detections.max_abs < 1e-4  # pixels
    area = report.comparisons["a_mask_area"]
    assert area.max_abs is not None and area.max_abs <= 1  # the release pastes in float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_each_piece_by_itself_equals_the_release(filled: Filled, dtype: torch.dtype) -> None:
    filled.model.pixel_mean = filled.model.pixel_mean.to(dtype)
    try:
        report = filled.compare("unit")
    finally:
        filled.model.pixel_mean = filled.model.pixel_mean.double()
    assert report.failures() == []
    assert report.passed
    assert set(report.not_compared) == set(report.excused)
