"""One training step of the official QueryInst on given features."""

import numpy as np
import torch
from torch import Tensor, nn

from queryseg.matching import Assignment
from queryseg.parity import ParityReport
from queryseg.projects.queryinst.convert import QUERYINST
from queryseg.projects.queryinst.model import QueryInst
from queryseg.projects.queryinst.parity_inputs import (
    IMAGE_SIZES,
    golden_features,
    golden_instances,
)
from queryseg.projects.queryinst.stage import StagePrediction
from queryseg.projects.queryinst.targets import InstanceTargets

LOSS_RATIO = 1e-5
GRADIENT_RATIO = 1e-3
GRADIENT_FLOOR = 1e-3
"""Of the largest norms, 1e4: below it a gradient is rounding, as of a bias before a batch norm."""


def compare_training(
    model: nn.Module,
    report: ParityReport,
    *,
    batch_statistics: bool = True,
    empty: tuple[int, ...] = (),
) -> None:
    """`loss_<tag>_<case>`: losses, matchings, mask targets and gradients of one step.

    Args:
        model: filled.
        report: holds the golden arrays.
        batch_statistics: whether the batch norms of the mask heads train.
        empty: numbers of the images without instances.
    """
    assert isinstance(model, QueryInst)
    model.train(batch_statistics)
    model.zero_grad()
    features = [level.requires_grad_() for level in golden_features(model.pixel_mean.dtype)]
    instances = golden_instances(empty)
    targets = InstanceTargets.with_masks(instances, model.device, model.size_divisibility)
    predictions = model.decoder(features, IMAGE_SIZES)
    matched = model.criterion.match(predictions, targets)
    mask_logits = model.matched_masks(features, predictions, matched, targets)
    losses = model.criterion(predictions, mask_logits, matched, targets)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    named = {"loss": total, **_accuracies(predictions, matched, targets)}
    for name, loss in losses.items():
        term, stage = name.rsplit("_", 1)
        named[f"stage{stage}_{term}"] = loss
    _compare_named(report, "loss", {name: float(loss.detach()) for name, loss in named.items()})
    _compare_matching(report, predictions, matched, targets)
    _compare_gradients(report, model, features)
    mean = model.mask_branch.head(0).convs[0].norm.running_mean
    report.by_value("bn_after_stage0_conv0_running_mean", mean, 1e-6)


def _accuracies(
    predictions: list[StagePrediction], matched: list[Assignment], targets: InstanceTargets
) -> dict[str, Tensor]:
    """Share of matched queries whose best class is right, in percent; the release logs it."""
    accuracies = {}
    for stage, (prediction, match) in enumerate(zip(predictions, matched)):
        best = prediction.class_logits[match.image_idx, match.src_idx].argmax(-1)
        right = (best == targets.labels[match.tgt_idx]).double()
        accuracies[f"stage{stage}_pos_acc"] = 100 * right.sum() / max(1, len(right))
    return accuracies


def _compare_named(report: ParityReport, kind: str, ours: dict[str, float]) -> None:
    names = report.golden[f"{kind}_names"].tolist()
    order = [name for name in names if name in ours]
    order += [name for name in ours if name not in names]
    report.exactly(f"{kind}_names", np.array(order))
    values = np.array([ours[name] for name in order])
    report.by_ratio(f"{kind}_values", values, LOSS_RATIO)


def _compare_matching(
    report: ParityReport,
    predictions: list[StagePrediction],
    matched: list[Assignment],
    targets: InstanceTargets,
) -> None:
    assigned = np.zeros((len(matched), *predictions[0].class_logits.shape[:2]), dtype=np.int16)
    crops = []
    for stage, (prediction, match) in enumerate(zip(predictions, matched)):
        for image in range(len(match.sizes)):
            slots, places = match.of_image(image)
            assigned[stage, image, slots.numpy()] = places.numpy() + 1
        boxes = prediction.boxes_xyxy_abs[match.image_idx, match.src_idx].detach()
        crops.append(targets.crop_masks(boxes, match.tgt_idx, 28).numpy())
    report.exactly("assigned_gt_inds", assigned)
    report.exactly("mask_targets_s0", np.packbits(crops[0] > 0, axis=-1))
    report.exactly("mask_target_sums", np.stack(crops).sum((2, 3)))


def _compare_gradients(report: ParityReport, model: QueryInst, features: list[Tensor]) -> None:
    """Norm of every gradient of the heads; -1 stands for none."""
    norms = {}
    for name, parameter in model.named_parameters():
        official = QUERYINST.to_official(name)
        if official is not None and not name.startswith("backbone."):
            grad = parameter.grad
            norms[official] = -1.0 if grad is None else float(grad.norm())
    golden = dict(zip(report.golden["grad_norm_names"].tolist(), report.golden["grad_norms"]))
    order = [name for name in golden if name in norms]
    order += [name for name in norms if name not in golden]
    report.exactly("grad_norm_names", np.array(order))
    scale = np.maximum([abs(golden.get(name, 0.0)) for name in order], GRADIENT_FLOOR)
    report.by_ratio(
        "grad_norms", np.array([norms[name] for name in order]), GRADIENT_RATIO, scale=scale
    )
    proposals = model.decoder.proposals
    for name, grad in (
        ("grad_init_boxes", proposals.boxes_cxcywh_norm.grad),
        ("grad_init_feats_first8", proposals.query_feats.grad[:8]),
    ):
        golden_grad = report.golden.get(name)
        largest = 0.0 if golden_grad is None else float(np.abs(golden_grad).max(initial=0.0))
        report.by_value(name, grad, max(GRADIENT_RATIO * largest, GRADIENT_FLOOR))
    level_norms = np.array([float(level.grad.norm()) for level in features])
    report.by_ratio("grad_feats_norm", level_norms, GRADIENT_RATIO)
