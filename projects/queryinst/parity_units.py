"""Small pieces of the official QueryInst by themselves."""

import numpy as np
import torch
from torch import Tensor, nn

from queryseg.losses import box_giou_loss, class_focal_loss
from queryseg.matching import BoxTargets, solve_assignments
from queryseg.parity import ParityReport, filled
from queryseg.postprocess.paste_masks import mask_values, paste_masks
from queryseg.projects.queryinst.box_head import BoxHead
from queryseg.projects.queryinst.boxes import apply_deltas
from queryseg.projects.queryinst.mask_loss import dice_loss
from queryseg.projects.queryinst.model import QueryInst
from queryseg.projects.queryinst.parity_inputs import CANVAS, golden_features, golden_instances
from queryseg.projects.queryinst.roi_features import BoxFeatures
from queryseg.projects.queryinst.targets import InstanceTargets

ACTIVATIONS = 1e-5
LOSS_RATIO = 1e-6

PARTS = {
    "dynamic_conv.dynamic_layer": "dynamic_layer",
    "dynamic_conv.norm_in": "norm_in",
    "dynamic_conv.norm_out": "norm_out",
    "projection": "fc_layer",
    "projection_norm": "fc_norm",
}


GIVEN = (
    *("coder_boxes", "coder_deltas", "mt_boxes", "mt_gt", "dice_logits", "dice_target"),
    *("focal_logits", "focal_labels", "hung_pred_boxes", "hung_gt_boxes", "hung_gt_labels"),
    *("hung_logits", "paste_boxes", "roi_boxes"),
)


@torch.no_grad()
def compare_units(model: nn.Module, report: ParityReport) -> None:
    """`unit`: box coding, mask targets, losses, matching, convolutions, pasting, pooling."""
    assert isinstance(model, QueryInst)
    dtype = model.pixel_mean.dtype
    given = {name: _tensor(report.golden[name], dtype) for name in GIVEN}
    for name in GIVEN:
        report.excuse(name, "what a piece is fed with, stored without a recipe")
    report.by_value("coder_out", apply_deltas(given["coder_boxes"], given["coder_deltas"]), 5e-4)
    targets = InstanceTargets.with_masks(golden_instances(), model.device, 32)
    crops = targets.crop_masks(given["mt_boxes"], given["mt_gt"], 28)
    report.exactly("mt_out", np.packbits(crops.numpy() > 0, axis=-1))
    _compare_losses(report, given)
    _compare_matching(model, report, given)
    _compare_dynamic_convs(report, dtype)
    _compare_pasting(report, given["paste_boxes"])
    _compare_pooling(report, given["roi_boxes"])


def _tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    tensor = torch.as_tensor(values)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _compare_losses(report: ParityReport, given: dict[str, Tensor]) -> None:
    masks = np.unpackbits(given["dice_target"].numpy(), axis=-1)[..., :28]
    dice = 8 * dice_loss(given["dice_logits"], _tensor(masks.astype(np.float64), torch.float64))
    report.by_ratio("dice_avg3_w8_each", dice, LOSS_RATIO)
    report.by_ratio("dice_avg3_w8", dice.sum() / 3, LOSS_RATIO)
    focal = 2 * class_focal_loss(given["focal_logits"], given["focal_labels"]) / 3
    report.by_ratio("focal_w2_avg3", focal, LOSS_RATIO)
    giou = box_giou_loss(given["hung_pred_boxes"][:4], given["hung_gt_boxes"])
    report.by_ratio("giou_w2_aligned_avg4", 2 * giou.sum() / 4, LOSS_RATIO)


def _compare_matching(model: QueryInst, report: ParityReport, given: dict[str, Tensor]) -> None:
    targets = BoxTargets(
        labels=given["hung_gt_labels"],
        boxes_xyxy_abs=given["hung_gt_boxes"],
        image_sizes=torch.tensor([CANVAS]),
        sizes=(len(given["hung_gt_labels"]),),
    )
    matcher = model.criterion.matcher
    cost = matcher.cost(given["hung_logits"][None], given["hung_pred_boxes"][None], targets)
    report.by_value("hung_cost", cost[0], ACTIVATIONS)
    slots, places = solve_assignments(cost[None], targets.sizes)[0].of_image(0)
    assigned = np.zeros(len(given["hung_logits"]), dtype=np.int64)
    assigned[slots.numpy()] = places.numpy() + 1
    report.exactly("hung_gt_inds", assigned)


def _compare_dynamic_convs(report: ParityReport, dtype: torch.dtype) -> None:
    """The box one with its projection, the mask one at every eighth channel."""
    for side in (7, 14):
        generator = np.random.RandomState(11)
        queries, maps = (
            _tensor(generator.randn(*shape).astype(np.float32), dtype)
            for shape in ((3, 256), (3, 256, side, side))
        )
        head = BoxHead(embed_dim=256, num_classes=1, resolution=side).to(dtype)
        for ours, official in PARTS.items():
            module = head.get_submodule(ours)
            for name, parameter in module.named_parameters():
                values = filled(f"unit.dynconv{side}.{official}.{name}", tuple(parameter.shape))
                parameter.copy_(values)
        filtered = head.dynamic_conv(maps.flatten(2).mT, queries)
        if side == 7:
            projected = head.projection_norm(head.projection(filtered.flatten(1))).relu()
            report.by_value("dynconv7_out", projected, ACTIVATIONS)
        else:
            report.by_value("dynconv14_out", filtered[:, :, ::8], ACTIVATIONS)


def _compare_pasting(report: ParityReport, boxes: Tensor) -> None:
    logits = np.random.RandomState(12).randn(4, 1, 28, 28).astype(np.float32)[:, 0]
    probs = _tensor(logits, boxes.dtype).sigmoid()
    report.mask_bits("paste_out", np.packbits(paste_masks(probs, boxes, CANVAS).numpy(), axis=-1))
    report.by_value("paste_prob_row60", mask_values(probs, boxes, CANVAS)[:, 60], ACTIVATIONS)


def _compare_pooling(report: ParityReport, boxes: Tensor) -> None:
    features = [level[:, :8] for level in golden_features(boxes.dtype)]
    images = torch.zeros(len(boxes), dtype=torch.int64)
    for side in (7, 14):
        pool = BoxFeatures(resolution=side)
        pooled = pool(features, boxes, images).mT.unflatten(2, (side, side))
        report.by_value(f"roi{side}_out", pooled[:, :4], ACTIVATIONS)
    report.exactly("roi_levels", pool.levels(boxes))
