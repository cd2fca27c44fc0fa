"""Training losses of QueryInst: class, box and mask in every stage."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from queryseg.losses import box_giou_loss, box_l1_loss, class_focal_loss, mean_target_count
from queryseg.matching import Assignment
from queryseg.projects.queryinst.mask_loss import dice_loss
from queryseg.projects.queryinst.matcher import StageMatcher
from queryseg.projects.queryinst.stage import StagePrediction
from queryseg.projects.queryinst.targets import InstanceTargets


class QueryInstCriterion(nn.Module):
    """Set prediction losses of all stages, each with its own matching; no stage weighs more.

    Everything is divided by the number of matched queries of a process, averaged over processes.
    Losses are called `loss_cls_<t>`, `loss_bbox_<t>`, `loss_iou_<t>` and, for stages with a mask
    head, `loss_mask_<t>`, stages counted from 0.

    Args:
        matcher: assigns instances to queries.
        weights: of the losses `cls`, `bbox`, `iou` and `mask`.
    """

    def __init__(self, *, matcher: StageMatcher, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.matcher = matcher
        self.weights = dict(weights)

    def match(
        self, predictions: Sequence[StagePrediction], targets: InstanceTargets
    ) -> list[Assignment]:
        """Which query stands for which instance, in each stage."""
        return self.matcher(predictions, targets)

    def forward(
        self,
        predictions: Sequence[StagePrediction],
        mask_logits: Mapping[int, Tensor],
        matched: Sequence[Assignment],
        targets: InstanceTargets,
    ) -> dict[str, Tensor]:
        """Weighted losses by name.

        Args:
            predictions: of every stage.
            mask_logits: stage -> (P, h, w) logits of each matched query for its instance's class.
            matched: as `match` returned it.
            targets: ground truth of the batch.
        """
        device = targets.labels.device
        count = mean_target_count(len(matched[0].tgt_idx), device)
        with torch.autocast(device.type, enabled=False):
            sums: dict[str, Tensor] = {}
            for stage, (prediction, assignment) in enumerate(zip(predictions, matched)):
                sums[f"cls_{stage}"] = self._class_loss(prediction, assignment, targets)
                boxes = self._box_losses(prediction, assignment, targets)
                sums[f"bbox_{stage}"], sums[f"iou_{stage}"] = boxes
            sums |= self._mask_losses(predictions, mask_logits, matched, targets)
        return {
            f"loss_{name}": self.weights[name.partition("_")[0]] * loss / count
            for name, loss in sums.items()
        }

    def _class_loss(
        self, prediction: StagePrediction, assignment: Assignment, targets: InstanceTargets
    ) -> Tensor:
        class_logits = prediction.class_logits.to(prediction.boxes_xyxy_abs.dtype)
        background = class_logits.shape[-1]
        labels = torch.full(class_logits.shape[:2], background, device=class_logits.device)
        labels[assignment.image_idx, assignment.src_idx] = targets.labels[assignment.tgt_idx]
        return class_focal_loss(class_logits, labels)

    def _box_losses(
        self, prediction: StagePrediction, assignment: Assignment, targets: InstanceTargets
    ) -> tuple[Tensor, Tensor]:
        boxes = _matched(prediction.boxes_xyxy_abs, assignment)
        instances = targets.boxes_xyxy_abs[assignment.tgt_idx].to(boxes.dtype)
        sides = targets.scales[assignment.image_idx]
        distance = box_l1_loss(boxes / sides, instances / sides)
        return distance.sum(), box_giou_loss(boxes, instances).sum()

    def _mask_losses(
        self,
        predictions: Sequence[StagePrediction],
        mask_logits: Mapping[int, Tensor],
        matched: Sequence[Assignment],
        targets: InstanceTargets,
    ) -> dict[str, Tensor]:
        """Dice losses of all stages; their targets are cropped together."""
        stages = list(mask_logits)
        boxes = torch.cat(
            [_matched(predictions[stage].boxes_xyxy_abs, matched[stage]) for stage in stages]
        )
        logits = torch.cat([mask_logits[stage] for stage in stages]).to(boxes.dtype)
        tgt_idx = torch.cat([matched[stage].tgt_idx for stage in stages])
        cropped = targets.crop_masks(boxes.detach(), tgt_idx, logits.shape[-1])
        parts = dice_loss(logits, cropped).split([len(mask_logits[stage]) for stage in stages])
        return {f"mask_{stage}": part.sum() for stage, part in zip(stages, parts)}


def _matched(values: Tensor, assignment: Assignment) -> Tensor:
    """(P, ...) rows of the matched queries out of (B, Q, ...)."""
    return values[assignment.image_idx, assignment.src_idx]
