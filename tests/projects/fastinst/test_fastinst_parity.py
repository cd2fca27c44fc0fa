"""FastInst against the golden data of the official release, through the parity tool."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from queryseg.engine import load_config
from queryseg.parity import ParityReport, find_bundle
from queryseg.projects.fastinst.parity_decisions import UNDECIDED
from queryseg.tools.console import ToolError
from queryseg.tools.parity import as_json, compare, main

GOLDEN = Path(__file__).parents[2] / "golden" / "fastinst"
CONFIG = "fastinst/fastinst_r50_d3.py"


@pytest.fixture(scope="module")
def evaluation() -> ParityReport:
    return compare(CONFIG, GOLDEN / "golden_eval_R50_D3.npz")


def test_every_stage_of_evaluation_equals_the_release(evaluation: ParityReport) -> None:
    assert evaluation.failures() == []
    assert evaluation.not_compared == []
    assert evaluation.passed
    assert len(evaluation.comparisons) == len(evaluation.golden) == 96


def test_final_predictions_are_well_within_the_tolerances(evaluation: ParityReport) -> None:
    # Measured: logits 1.4e-6, mask logits 3.1e-5 (the golden float32 rounding itself).
    for run in ("one", "two"):
        logits = evaluation.comparisons[f"{run}/pred_logits"]
        masks = evaluation.comparisons[f"{run}/pred_masks"]
        assert logits.max_abs is not None and logits.max_abs < 5e-6
        assert masks.max_abs is not None and masks.max_abs < 1e-4
        assert evaluation.comparisons[f"{run}/selected_indices"].max_abs == 0


def test_all_weights_have_official_names(evaluation: ParityReport) -> None:
    assert evaluation.keys is not None
    assert len(evaluation.keys.matched) == 454
    assert not evaluation.keys.missing
    assert not evaluation.keys.unexpected


def test_losses_matchings_and_gradients_equal_the_release() -> None:
    report = compare(CONFIG, GOLDEN / "golden_train_R50_D3.npz")
    assert report.failures() == []
    assert report.passed
    assert len(report.golden["grad_names"]) == 242
    total = report.ours["loss_total"]
    assert float(total) == pytest.approx(317.11282, rel=1e-5)


@pytest.mark.parametrize(
    ("tag", "config", "total"),
    [
        ("R50_D1", "fastinst_r50_d1", 164.00475),
        ("R50-vd-dcn_D3", "fastinst_r50d_dcn_d3", 221.19366),
    ],
)
def test_other_models_learn_as_the_release(tag: str, config: str, total: float) -> None:
    # Recorded by running the release on a CPU in the same way, without the matchings.
    report = compare(f"fastinst/{config}.py", GOLDEN / f"golden_train_{tag}.npz")
    assert report.failures() == []
    assert report.passed
    assert float(report.ours["loss_total"]) == pytest.approx(total, rel=1e-5)


def test_post_processing_equals_the_release_except_for_its_empty_boxes() -> None:
    report = compare(CONFIG, GOLDEN / "golden_postproc.npz", dtype=torch.float32)
    assert report.failures() == []
    assert report.passed
    assert report.not_compared == ["full_boxes_all_zero", "padded_boxes_all_zero"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_that_rounding_decides_follow_the_golden_run(
    evaluation: ParityReport, dtype: torch.dtype
) -> None:
    counts = evaluation.golden["one/head1_attn_blocked_count"].copy()
    logits = evaluation.golden["one/head1_min_abs_logit"]
    assert logits > UNDECIDED  # so a changed count cannot be followed
    counts[0, 0] += 1
    changed = {**evaluation.golden, "one/head1_attn_blocked_count": counts}
    model = instantiate(load_config(CONFIG).model)
    report = find_bundle(GOLDEN / "golden_eval_R50_D3.npz", model).compare(model, changed, dtype)
    assert not report.comparisons["one/head1_attn_blocked_count"].within
    others = [line for line in report.failures() if "head1_attn" not in line]
    assert others == []
    assert all("head0" in remark for remark in report.remarks)


def test_a_changed_model_fails() -> None:
    report = compare(
        CONFIG, GOLDEN / "golden_eval_R50_D3.npz", ["model.decoder.update=query_then_pixel"]
    )
    assert not report.passed
    assert not report.comparisons["one/pred_logits"].within
    assert report.comparisons["one/proposal_cls_logits"].within


def test_tool_prints_one_json_object_and_dumps_arrays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = tmp_path / "ours.npz"
    bundle = GOLDEN / "golden_postproc.npz"
    code = main(["--config-file", CONFIG, "--golden", str(bundle), "--dump", str(dump)])
    assert code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["arrays"]["full_scores"]["role"] == "output"
    assert printed["arrays"]["full_scores"]["within"] is True
    assert printed["arrays"]["pred_logits"]["role"] == "input"
    assert printed["keys"] == {"matched": 454, "missing": [], "unexpected": []}
    with np.load(dump) as ours, np.load(bundle) as golden:
        # Tolerances as golden.md gives them: a pixel on the threshold turns with the processor.
        for name, tolerance in (("full_scores", 4e-5), ("full_classes", 0), ("full_area", 8)):
            assert ours[name].dtype == golden[name].dtype
            pairs = np.sort(ours[name]), np.sort(golden[name])
            np.testing.assert_allclose(*pairs, rtol=0, atol=tolerance)


def test_report_is_strict_json(evaluation: ParityReport) -> None:
    text = as_json(evaluation)
    assert "Infinity" not in text
    assert json.loads(text)["arrays"]["one/selection_gap"]["tolerance"] is None


def test_files_that_are_no_bundle_are_refused_in_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(ToolError, match=r"other.npz is no golden bundle; known names: "):
        compare(CONFIG, tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match=r"no golden bundle .*missing.npz"):
        compare(CONFIG, tmp_path / "missing.npz")
