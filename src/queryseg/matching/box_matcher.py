"""Hungarian matching of boxes and classes with ground-truth instances."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from queryseg.matching.assignment import Assignment, solve_assignments
from queryseg.matching.box_targets import BoxTargets
from queryseg.matching.cost_terms import cost_box, cost_focal, cost_giou


class BoxMatcher(nn.Module):
    """Assign each instance the query whose class and box fit best (Deformable DETR).

    Runs in at least float32 and without gradients. The L1 cost counts shares of the image, the
    overlap is that of boxes in pixels.

    Args:
        weight_class: weight of the focal class cost.
        weight_box: weight of the L1 distance of cx, cy, w, h.
        weight_giou: weight of minus the generalized intersection over union.
        alpha: of the focal cost.
        gamma: of the focal cost.
    """

    def __init__(
        self,
        *,
        weight_class: float = 2.0,
        weight_box: float = 5.0,
        weight_giou: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        super().__init__()
        self.weight_class = weight_class
        self.weight_box = weight_box
        self.weight_giou = weight_giou
        self.alpha = alpha
        self.gamma = gamma

    @torch.no_grad()
    def forward(
        self, predictions: Sequence[tuple[Tensor, Tensor]], targets: BoxTargets
    ) -> list[Assignment]:
        """Match several sets of predictions of one batch.

        Args:
            predictions: for each set, class logits (B, Q, K) and boxes (B, Q, 4) as cx, cy, w, h in
                shares of the image before padding. All sets have the same Q.
            targets: ground truth of the batch.

        Returns:
            One assignment for each set.
        """
        with torch.autocast(targets.labels.device.type, enabled=False):
            costs = [self.cost(logits, boxes, targets) for logits, boxes in predictions]
            return solve_assignments(torch.stack(costs), targets.sizes)

    def cost(self, class_logits: Tensor, boxes_cxcywh_norm: Tensor, targets: BoxTargets) -> Tensor:
        """(B, Q, N) cost of one set."""
        dtype = torch.promote_types(boxes_cxcywh_norm.dtype, torch.float32)
        boxes, logits = boxes_cxcywh_norm.to(dtype), class_logits.to(dtype)
        boxes_xyxy_abs = box_convert(boxes, "cxcywh", "xyxy") * targets.scales[:, None]
        labels = targets.padded(targets.labels)
        shares = targets.padded(targets.boxes_cxcywh_norm).to(dtype)
        return (
            self.weight_class * cost_focal(logits, labels, alpha=self.alpha, gamma=self.gamma)
            + self.weight_box * cost_box(boxes, shares)
            + self.weight_giou * cost_giou(boxes_xyxy_abs, targets.padded(targets.boxes_xyxy_abs))
        )
