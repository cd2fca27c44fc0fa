"""The kinds of golden bundles that are not stored here, on bundles made at home."""

from pathlib import Path

import numpy as np
import pytest
import torch
from queryinst_model import small_model

from queryseg.parity import ParityReport, find_bundle
from queryseg.projects.queryinst.convert import QUERYINST
from queryseg.projects.queryinst.model import QueryInst
from queryseg.projects.queryinst.parity_inputs import golden_weights

TERMS = ("loss_bbox", "loss_cls", "loss_iou", "loss_mask", "pos_acc")


def _model() -> QueryInst:
    """One narrow stage that takes the golden features."""
    return small_model(
        "model.num_classes=80",
        "model.decoder.embed_dim=256",
        "model.decoder.num_stages=1",
        "model.decoder.dynamic_dim=4",
        "model.decoder.box_features.strides=[4,8,16,32]",
        "model.mask_branch.num_convs=1",
    ).double()


def _run(case: str, golden: dict[str, np.ndarray]) -> tuple[ParityReport, QueryInst]:
    model = _model()
    official = QUERYINST.convert_back(model.state_dict())
    golden_weights(official)
    model.load_state_dict(QUERYINST.convert(official))
    report = ParityReport(golden)
    find_bundle(Path(f"loss_r50_100q_{case}.npz"), model).run(model, report)
    return report, model


def _empty_bundle() -> dict[str, np.ndarray]:
    heads = [n for n, _ in _model().named_parameters() if not n.startswith("backbone.")]
    return {
        "loss_names": np.array(["loss", *(f"stage0_{term}" for term in TERMS)]),
        "loss_values": np.zeros(6),
        "assigned_gt_inds": np.zeros((1, 2, 9), dtype=np.int16),
        "mask_targets_s0": np.zeros((0, 28, 4), dtype=np.uint8),
        "mask_target_sums": np.zeros((1, 0), dtype=np.float32),
        "grad_norm_names": np.array([QUERYINST.to_official(name) for name in heads]),
        "grad_norms": np.zeros(len(heads)),
        "grad_init_boxes": np.zeros((9, 4), dtype=np.float32),
        "grad_init_feats_first8": np.zeros((8, 256), dtype=np.float32),
        "grad_feats_norm": np.zeros(4, dtype=np.float32),
        "bn_after_stage0_conv0_running_mean": np.zeros(256, dtype=np.float32),
    }


@pytest.mark.parametrize("case", ["evalbn", "train_img1_empty", "train_all_empty"])
def test_a_bundle_made_at_home_agrees_with_itself_and_not_with_a_changed_one(case: str) -> None:
    made, model = _run(case, _empty_bundle())
    assert set(made.ours) == set(made.golden)
    again, _ = _run(case, made.ours)
    assert again.failures() == []
    changed = {**made.ours, "loss_values": made.ours["loss_values"] * (1 + 1e-4)}
    assert [line.split(":")[0] for line in _run(case, changed)[0].failures()] == ["loss_values"]
    losses = dict(zip(made.ours["loss_names"].tolist(), made.ours["loss_values"]))
    assert losses["loss"] == pytest.approx(sum(losses[f"stage0_{t}"] for t in TERMS[:4]))
    counts = (made.ours["assigned_gt_inds"] > 0).sum((0, 2)).tolist()
    assert counts == {"evalbn": [4, 2], "train_img1_empty": [4, 0]}.get(case, [0, 0])
    moved = bool(made.ours["bn_after_stage0_conv0_running_mean"].any())
    assert moved == (case == "train_img1_empty")
    assert all(p.grad is None for p in model.backbone.parameters())


def test_without_any_object_boxes_and_masks_have_gradients_of_zero_rather_than_none() -> None:
    made, _ = _run("train_all_empty", _empty_bundle())
    losses = dict(zip(made.ours["loss_names"].tolist(), made.ours["loss_values"]))
    assert losses["stage0_loss_cls"] > 0
    assert all(losses[f"stage0_{t}"] == 0 for t in TERMS if t != "loss_cls")
    norms = dict(zip(made.ours["grad_norm_names"].tolist(), made.ours["grad_norms"]))
    assert min(norms.values()) == 0.0
    masks = {name: norm for name, norm in norms.items() if ".mask_head." in name}
    assert len(masks) > 10 and not any(masks.values())
    assert norms["roi_head.bbox_head.0.fc_cls.weight"] > 0
    assert norms["roi_head.bbox_head.0.fc_reg.weight"] == 0


@pytest.mark.parametrize("name", ["full_r101_300q", "full_swin_l_300q", "head_r50_100q", "unit"])
def test_every_bundle_of_the_release_is_recognised(name: str) -> None:
    bundle = find_bundle(Path(f"{name}.npz"), _model())
    assert bundle.layout is QUERYINST


def test_whole_images_are_compared_as_sets_of_detections() -> None:
    model = small_model(
        "model.num_classes=80", "model.decoder.num_queries=30", "model.max_detections=30"
    ).double()
    torch.nn.init.normal_(model.decoder.stages[-1].box_head.class_embed.bias)
    # A fourth level, so that the pyramid is as deep as the release's.
    model.backbone.register_forward_hook(lambda _, __, out: {**out, "p5": out["p4"]})
    model.features = lambda images: list(model.backbone(images.tensor).values())[:3]
    golden: dict[str, np.ndarray] = {}
    for level, channels in enumerate((8, 8, 8, 8)):
        golden[f"fpn{level}_stats"] = np.zeros(3, dtype=np.float32)
        golden[f"fpn{level}_c0_7_corner"] = np.zeros((channels, 6, 8), dtype=np.float32)
    for prefix, (height, width) in (("a", (192, 256)), ("b", (96, 128))):
        golden[f"{prefix}_det_x1y1x2y2_score_label"] = np.zeros((30, 6), dtype=np.float32)
        golden[f"{prefix}_mask_area"] = np.zeros(30, dtype=np.int32)
        golden[f"{prefix}_masks_top8_packed"] = np.zeros((8, height, width // 8), dtype=np.uint8)
    bundle = find_bundle(Path("full_swin_l_300q.npz"), model)
    made = ParityReport(golden)
    bundle.run(model, made)
    swapped = dict(made.ours)
    order = [*range(8), 9, 8, *range(10, 30)]
    for name in ("a_det_x1y1x2y2_score_label", "a_mask_area"):
        swapped[name] = made.ours[name][order]
    report = ParityReport(swapped)
    bundle.run(model, report)
    assert report.failures() == []
    moved = dict(made.ours)
    moved["b_det_x1y1x2y2_score_label"] = moved["b_det_x1y1x2y2_score_label"].copy()
    moved["b_det_x1y1x2y2_score_label"][3, 0] += 0.01
    report = ParityReport(moved)
    bundle.run(model, report)
    assert [line.split(":")[0] for line in report.failures()] == ["b_det_x1y1x2y2_score_label"]
