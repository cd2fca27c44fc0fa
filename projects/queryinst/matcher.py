"""Hungarian matching of every stage's predictions with ground-truth instances."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from queryseg.matching import (
    Assignment,
    BoxTargets,
    cost_box,
    cost_focal,
    cost_giou,
    solve_assignments,
)
from queryseg.projects.queryinst.stage import StagePrediction


class StageMatcher(nn.Module):
    """Assign each instance the query whose class and box fit best, in each stage by itself.

    Runs in at least float32 and without gradients. Differs from DETR in what the L1 distance
    compares: corners, as shares of the image's sides.

    Args:
        weight_class: weight of the focal class cost.
        weight_box: weight of the L1 distance.
        weight_giou: weight of minus the generalized intersection over union, in pixels.
    """

    def __init__(self, *, weight_class: float, weight_box: float, weight_giou: float) -> None:
        super().__init__()
        self.weight_class = weight_class
        self.weight_box = weight_box
        self.weight_giou = weight_giou

    @torch.no_grad()
    def forward(
        self, predictions: Sequence[StagePrediction], targets: BoxTargets
    ) -> list[Assignment]:
        """One assignment for each stage."""
        with torch.autocast(targets.labels.device.type, enabled=False):
            costs = [self.cost(x.class_logits, x.boxes_xyxy_abs, targets) for x in predictions]
            return solve_assignments(torch.stack(costs), targets.sizes)

    def cost(self, class_logits: Tensor, boxes_xyxy_abs: Tensor, targets: BoxTargets) -> Tensor:
        """(B, Q, N) cost of one stage, from (B, Q, K) logits and (B, Q, 4) boxes."""
        boxes, logits = boxes_xyxy_abs, class_logits.to(boxes_xyxy_abs.dtype)
        instances = targets.padded(targets.boxes_xyxy_abs).to(boxes.dtype)
        sides = targets.scales[:, None]
        return (
            self.weight_class * cost_focal(logits, targets.padded(targets.labels))
            + self.weight_box * cost_box(boxes / sides, instances / sides)
            + self.weight_giou * cost_giou(boxes, instances)
        )
