"""Whole images through the official QueryInst."""

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from queryseg.parity import ParityReport, align_instances
from queryseg.projects.queryinst.model import QueryInst
from queryseg.projects.queryinst.parity_inputs import CANVAS, golden_image

PYRAMID_SHARE = 1e-5
"""Of the largest activation."""

SCORES = 2e-5
BOXES_PX = 2.5e-3
AREA_PIXELS = 8


@torch.no_grad()
def compare_detections(model: nn.Module, report: ParityReport) -> None:
    """`full_<tag>`: pyramid and detections at the size of the image and at half of it."""
    assert isinstance(model, QueryInst)
    model.eval()
    pyramid: list[Tensor] = []
    handle = model.backbone.register_forward_hook(lambda _, __, out: pyramid.extend(out.values()))
    try:
        for prefix, scale in (("a", 1), ("b", 2)):
            height, width = (side // scale for side in CANVAS)
            inputs = {"image": golden_image(), "height": height, "width": width}
            instances = model([inputs])[0]["instances"]
            _compare_instances(report, f"{prefix}_", instances)
    finally:
        handle.remove()
    for level in range(4):
        _compare_level(report, f"fpn{level}_", pyramid[level])


def _compare_level(report: ParityReport, prefix: str, level: Tensor) -> None:
    largest = level.abs().max()
    tolerance = PYRAMID_SHARE * float(largest)
    stats = torch.stack((level.mean(), level.std(), largest))
    report.by_value(f"{prefix}stats", stats, tolerance)
    report.by_value(f"{prefix}c0_7_corner", level[0, :8, :6, :8], tolerance)


def _compare_instances(report: ParityReport, prefix: str, instances: Instances) -> None:
    """Compare by class, score and area: two equal scores may be in any order."""
    masks = instances.pred_masks.numpy()
    rows = report.golden[f"{prefix}det_x1y1x2y2_score_label"]
    golden = {
        "scores": rows[:, 4],
        "classes": rows[:, 5],
        "area": report.golden[f"{prefix}mask_area"],
    }
    ours = {
        "scores": instances.scores.numpy(),
        "classes": instances.pred_classes.numpy(),
        "area": masks.sum((1, 2)),
    }
    place = align_instances(golden, ours, score_tolerance=SCORES, area_tolerance=AREA_PIXELS)
    detections = np.column_stack(
        (instances.pred_boxes.tensor.numpy(), ours["scores"], ours["classes"])
    )
    # Scores and classes count in the unit of the boxes: so that one bound fits all.
    unit = np.array([1.0] * 4 + [BOXES_PX / SCORES, 1.0])
    gaps = np.abs(detections[place].astype(np.float64) - rows) * unit
    report.deviation(
        f"{prefix}det_x1y1x2y2_score_label",
        float(gaps.max(initial=0.0)),
        BOXES_PX,
        dump=detections,
    )
    report.by_value(f"{prefix}mask_area", ours["area"][place], AREA_PIXELS, dump=ours["area"])
    bits = np.packbits(masks, axis=-1)
    report.mask_bits(f"{prefix}masks_top8_packed", bits[place[:8]], dump=bits[:8])
