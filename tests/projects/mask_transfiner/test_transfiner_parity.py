"""Mask Transfiner against the golden data of the official release."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from queryseg.engine import load_config
from queryseg.parity import ParityReport, fill_by_official_names, find_bundle
from queryseg.projects.mask_transfiner.convert import LAYOUTS
from queryseg.projects.mask_transfiner.parity import spread_detector
from queryseg.projects.mask_transfiner.parity_evaluation import (
    compare_demo_mode,
    compare_model,
    head_of,
    recipe_features,
)
from queryseg.projects.mask_transfiner.parity_training import prepare, training_instances

GOLDEN = Path(__file__).parents[2] / "golden" / "mask_transfiner"
CONFIG = "mask_transfiner/mask_transfiner_r50_1x.py"


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return instantiate(load_config(CONFIG).model)


def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as bundle:
        return {key: bundle[key] for key in bundle.files}


@pytest.mark.parametrize(
    "name",
    [
        "head_fixed_features",
        "train_losses",
        "pos_embed",
        "gt_incoherent",
        "propagation_two_boxes",
    ],
)
def test_everything_in_a_bundle_equals_the_release(name: str, model: nn.Module) -> None:
    bundle = find_bundle(GOLDEN / f"{name}.npz", model)
    report = bundle.compare(model, stored(name))
    assert report.failures() == []
    assert report.passed
    assert report.keys is not None and len(report.keys.matched) == 375
    outputs = [c for c in report.comparisons.values() if c.role == "output"]
    assert len(outputs) >= 2


@pytest.mark.parametrize(
    ("manifest", "config"),
    [
        ("R_50_FPN_1x", "r50_1x"),
        ("R_50_FPN_3x", "r50_3x"),
        ("R_50_FPN_3x_deform", "r50_dcn_3x"),
        ("R_101_FPN_3x", "r101_3x"),
        ("R_101_FPN_3x_deform", "r101_dcn_3x"),
    ],
)
def test_every_official_name_maps_to_one_of_ours_of_the_same_shape(
    manifest: str, config: str
) -> None:
    official = json.loads((GOLDEN / "manifest" / f"mask_rcnn_{manifest}.json").read_text())
    with torch.device("meta"):
        model = instantiate(load_config(f"mask_transfiner/mask_transfiner_{config}.py").model)
    ours = {name: list(value.shape) for name, value in model.state_dict().items()}
    mapped = {LAYOUTS[0].to_ours(name): shape for name, shape in official.items()}
    assert mapped == ours
    assert LAYOUTS[0].recognises(official)


@pytest.fixture(scope="module")
def step(model: nn.Module) -> tuple[dict[str, torch.Tensor], nn.Module, dict[str, torch.Tensor]]:
    """One training step of the mask head on the golden inputs."""

    def spread(state_dict):
        spread_detector(4.0, -5.0, state_dict)

    fill_by_official_names(model, LAYOUTS[0], spread)
    model.float()
    head = head_of(model)
    prepare(head, ParityReport(stored("train_losses")))
    features = recipe_features(192, 256, 2, 30.0, torch.float32)
    features = {name: value.requires_grad_() for name, value in features.items()}
    losses = head(features, training_instances(torch.float32))
    return losses, head, features


def official_grads(head: nn.Module) -> dict[str, float]:
    norms = {}
    for name, parameter in head.named_parameters():
        official = LAYOUTS[0].to_official(f"roi_heads.mask_head.{name}")
        assert official is not None
        if parameter.grad is not None:
            norms[official.removeprefix("roi_heads.")] = float(parameter.grad.norm())
    return norms


def test_losses_of_a_training_step_equal_the_release(step) -> None:
    losses, _, _ = step
    golden = json.loads((GOLDEN / "train_losses.json").read_text())["losses"]
    assert losses.keys() == golden.keys()
    for name, value in golden.items():
        assert float(losses[name]) == pytest.approx(value, rel=1e-5), name


def test_gradients_of_a_training_step_equal_the_release(step) -> None:
    losses, head, features = step
    head.zero_grad()
    torch.stack(list(losses.values())).sum().backward(retain_graph=True)
    golden = json.loads((GOLDEN / "train_losses.json").read_text())["grad_norms_total"]
    ours = official_grads(head)
    ours.update({f"feat.{n}": float(v.grad.norm()) for n, v in features.items()})
    assert ours.keys() == golden.keys()
    for name, value in golden.items():
        # Measured: 1.5e-4 at most; the smallest norms are sums that cancel.
        assert ours[name] == pytest.approx(value, rel=2e-3, abs=1e-7), name


def test_every_loss_reaches_what_it_reaches_in_the_release(step) -> None:
    losses, head, features = step
    reach = json.loads((GOLDEN / "train_losses.json").read_text())["reach"]
    for name, loss in losses.items():
        head.zero_grad()
        for value in features.values():
            value.grad = None
        loss.backward(retain_graph=True)
        norms = official_grads(head)
        reached = [n for n, norm in norms.items() if norm > 0]
        groups = tuple(reach[name]["params_with_grad"])
        assert all(n.startswith(groups) for n in reached), name
        assert all(any(n.startswith(group) for n in reached) for group in groups), name
        for level, norm in reach[name]["feats"].items():
            grad = features[level].grad
            ours = 0.0 if grad is None else float(grad.norm())
            assert ours == pytest.approx(norm, rel=2e-3, abs=1e-8), (name, level)


def test_the_demo_widens_the_finest_region_and_blurs(model: nn.Module) -> None:
    """There is no golden array here: the definition is written out again with scipy."""
    from scipy.ndimage import binary_dilation, correlate1d

    golden = stored("head_fixed_features")
    bundle = find_bundle(Path("head_demo_mode.npz"), model)
    assert bundle.run is compare_demo_mode
    fill_by_official_names(model, LAYOUTS[0], bundle.adjust)
    head = head_of(model)
    before = head.region.dilate_finest, head.propagation
    try:
        report = ParityReport({"nodes": golden["n28"], "pred_masks_box0_2_9": np.zeros(1)})
        compare_demo_mode(model, report)
        finest = (golden["incoherence"][:10] >= 0.8).repeat(4, 1).repeat(4, 2)
        widened = binary_dilation(finest, np.ones((1, 3, 3)))
        expected = golden["n28"] + golden["n56"] + widened.sum((1, 2))
        assert report.ours["nodes"].tolist() == expected.tolist()
        sharp = torch.rand(2, 1, 20, 20, dtype=torch.float64)
        from queryseg.mask_refinement.propagation import _blurred

        weights = np.array([1, 6, 15, 20, 15, 6, 1]) / 64
        smooth = correlate1d(sharp.numpy(), weights, axis=2, mode="constant")
        smooth = correlate1d(smooth, weights, axis=3, mode="constant")
        np.testing.assert_allclose(_blurred(sharp).numpy(), smooth, rtol=1e-12)
    finally:
        head.region.dilate_finest, head.propagation = before


@pytest.mark.parametrize(
    ("name", "config"), [("R_50_FPN_3x", "r50_1x"), ("R_50_FPN_3x_deform", "r50_dcn_3x")]
)
def test_bundles_of_whole_models_compare_every_stage_of_inference(name: str, config: str) -> None:
    """Whole-model arrays are not stored: what the tool dumps is put back in, then spoilt."""
    model = instantiate(load_config(f"mask_transfiner/mask_transfiner_{config}.py").model)
    bundle = find_bundle(Path(f"full_mask_rcnn_{name}.npz"), model)
    assert bundle.run is compare_model
    names = ["coarse_logits", "incoherence", "counts", "node_labels", "pred_masks", "pasted_bits"]
    names += ["box_scores", "box_deltas", "rpn_obj_p4", "rpn_obj_p6", "rpn_deltas_p5"]
    names += [f"p{level}_{part}" for level in range(2, 7) for part in ("ch0_4", "mean", "std")]
    given = {
        "boxes": np.array([[20, 30, 200, 150], [100, 20, 180, 180], [40, 60, 90, 110]], "float32"),
        "classes": np.array([1, 30, 79]),
    }
    empty = {name: np.zeros(1, "uint8" if "bits" in name else "float32") for name in names}
    first = bundle.compare(model, {**given, **empty})
    assert sorted(first.ours) == sorted([*given, *names])
    for array, shift in (("pred_masks", 0.0), ("pred_masks", 2e-4), ("p4_mean", 1.0)):
        again = ParityReport({**first.ours, array: first.ours[array] + shift})
        bundle.run(model, again)
        assert again.passed is (shift == 0), again.failures()
    assert first.ours["counts"].shape == (3, 3) and first.ours["counts"].any()
    assert first.ours["pasted_bits"].any()
