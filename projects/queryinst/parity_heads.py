"""The stages of the official QueryInst on given features."""

from functools import partial

import torch
from torch import Tensor, nn

from queryseg.parity import ParityReport
from queryseg.projects.queryinst.model import QueryInst
from queryseg.projects.queryinst.parity_inputs import IMAGE_SIZES, golden_features
from queryseg.projects.queryinst.stage import StagePrediction

# What two runs of the release differ by in the first and in the last stage.
LOGITS = (2e-6, 3.6e-5)
BOXES_PX = (1.3e-4, 4.2e-3)
QUERIES = (3e-6, 1.7e-5)
MASK_LOGITS = (7e-7, 3.6e-6)
ALLOWANCE = 5

SLOTS = (0, 1, 2, 3, 9, 0, 1)
IMAGES = (0, 0, 0, 0, 0, 1, 1)


@torch.no_grad()
def compare_heads(model: nn.Module, report: ParityReport) -> None:
    """`head_<tag>`: boxes, queries, logits and masks of every stage."""
    assert isinstance(model, QueryInst)
    model.eval()
    features = golden_features(model.pixel_mean.dtype)
    boxes = model.decoder.proposals(IMAGE_SIZES)[0]
    predictions = model.decoder(features, IMAGE_SIZES)
    for image in range(len(IMAGE_SIZES)):
        report.by_value(f"init_boxes_img{image}", boxes[image], ALLOWANCE * BOXES_PX[0])
    slots, images = torch.tensor(SLOTS), torch.tensor(IMAGES)
    pool = model.decoder.stages[0].box_features
    box_feats = pool(features, boxes[0, [0, 3, 9]], torch.zeros(3, dtype=torch.int64))
    pooled = box_feats.mT.unflatten(2, (7, 7))[:, :16]
    report.by_value("s0_box_roifeat_img0_slots0_3_9", pooled, ALLOWANCE * QUERIES[0])
    _compare_first_mask_features(model, report, features, predictions[0])
    for stage, prediction in enumerate(predictions):
        allowed = partial(_allowance, share=stage / (len(predictions) - 1))
        _compare_boxes(report, f"s{stage}_", prediction, allowed)
        queries = [x.mask_queries[images, slots] for x in predictions]
        box_feats = model.mask_branch.box_features(
            features, prediction.boxes_xyxy_abs[images, slots], images
        )
        upsampled = model.mask_branch.upsampled(stage, box_feats, queries)
        logits = model.mask_branch.head(stage).classifier(upsampled)
        classes = [0, 17, 79] if stage == len(predictions) - 1 else [17]
        tolerance = allowed(MASK_LOGITS)
        report.by_value(f"s{stage}_mask_sel_cls0_17_79", logits[:, classes], tolerance)
        report.by_value(f"s{stage}_mask_sel_mean_per_class", logits.mean((2, 3)), tolerance)


def _allowance(deviation: tuple[float, float], share: float) -> float:
    """Rounding grows by about the same factor in every stage."""
    first, last = deviation
    return ALLOWANCE * first * (last / first) ** share


def _compare_boxes(
    report: ParityReport, prefix: str, prediction: StagePrediction, allowed: partial[float]
) -> None:
    logits, queries = prediction.class_logits, prediction.query_feats
    report.by_value(f"{prefix}cls", logits[0], allowed(LOGITS))
    report.by_value(f"{prefix}cls_img1_first20", logits[1, :20], allowed(LOGITS))
    report.by_value(f"{prefix}boxes", prediction.boxes_xyxy_abs, allowed(BOXES_PX))
    report.by_value(f"{prefix}obj_first12", queries[:, :12], allowed(QUERIES))
    report.by_value(f"{prefix}attn_first12", prediction.mask_queries[:, :12], allowed(QUERIES))
    report.by_value(f"{prefix}obj_rowmean", queries.abs().mean(-1), allowed(QUERIES))


def _compare_first_mask_features(
    model: QueryInst, report: ParityReport, features: list[Tensor], prediction: StagePrediction
) -> None:
    slots, images = torch.tensor(SLOTS), torch.tensor(IMAGES)
    branch = model.mask_branch
    box_feats = branch.box_features(features, prediction.boxes_xyxy_abs[images, slots], images)
    side = branch.box_features.resolution
    pooled = box_feats.mT.unflatten(2, (side, side))[:, :4]
    report.by_value("s0_mask_roifeat_sel_c0_4", pooled, ALLOWANCE * QUERIES[0])
    dynamic_conv = branch.head(0).dynamic_conv
    assert dynamic_conv is not None
    filtered = dynamic_conv(box_feats, prediction.mask_queries[images, slots])[:, :, :8]
    report.by_value("s0_mask_dynconv_sel_c0_8", filtered, ALLOWANCE * QUERIES[0])
