"""Training losses of FastInst."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from queryseg.losses import (
    PointSampler,
    class_cross_entropy,
    mask_bce_loss,
    mask_dice_loss,
    mean_target_count,
    sample_maps,
    sample_masks,
)
from queryseg.matching import Assignment, MaskTargets
from queryseg.projects.fastinst.activation_loss import InstanceActivationLoss
from queryseg.projects.fastinst.decoder import Decoded
from queryseg.projects.fastinst.matcher import QueryMatcher
from queryseg.projects.fastinst.prediction_head import Prediction


@dataclass(frozen=True)
class Matched:
    """Which query stands for which instance, at every stage.

    Args:
        guiding: of the last head; fixed for all guided predictions.
        stages: of the heads 0 to D.
    """

    guiding: Assignment
    stages: list[Assignment]


class FastInstCriterion(nn.Module):
    """Instance activation, class and mask losses of all heads (equation 2).

    Loss names are those of the release: `loss_proposal`; `loss_ce`, `loss_mask`, `loss_dice` of
    the last head without suffix, of the D guided predictions with `_0` to `_{D-1}`, of the heads 0
    to D-1 with the suffixes after those.

    Args:
        matcher: assigns instances to queries.
        activation_loss: loss of the auxiliary classification head.
        point_sampler: chooses the points of the mask losses.
        weights: of the losses `ce`, `mask`, `dice` and `proposal`.
        no_object_weight: weight of queries without an instance in the class loss.
        deep_supervision: supervise all heads, not only the last.
        match_once: let the last head use the guiding assignment (paper) instead of matching it a
            second time with other points (release).
    """

    def __init__(
        self,
        *,
        matcher: QueryMatcher,
        activation_loss: InstanceActivationLoss,
        point_sampler: PointSampler,
        weights: Mapping[str, float],
        no_object_weight: float = 0.1,
        deep_supervision: bool = True,
        match_once: bool = False,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.activation_loss = activation_loss
        self.point_sampler = point_sampler
        self.weights = dict(weights)
        self.no_object_weight = no_object_weight
        self.deep_supervision = deep_supervision
        self.match_once = match_once

    def match(self, decoded: Decoded, targets: MaskTargets) -> Matched:
        """Match all heads, the last one also for guidance, in one go."""
        heads = decoded.predictions if self.deep_supervision else [decoded.final]
        extra = [] if self.match_once else [decoded.final]
        assigned = self.matcher([*extra, *heads], decoded.queries.locations, targets)
        stages = assigned[len(extra) :]
        return Matched(guiding=assigned[0] if extra else stages[-1], stages=stages)

    def forward(
        self,
        decoded: Decoded,
        guided: Sequence[Prediction],
        matched: Matched,
        targets: MaskTargets,
    ) -> dict[str, Tensor]:
        """Weighted losses by name.

        Args:
            decoded: the normal pass.
            guided: D predictions under ground-truth guidance, or none.
            matched: as `match` returned it.
            targets: ground truth of the batch.
        """
        if not self.deep_supervision:
            guided = []
        predictions = [*guided, *decoded.predictions[-len(matched.stages) :]]
        assignments = [*[matched.guiding] * len(guided), *matched.stages]
        with torch.autocast(targets.masks.device.type, enabled=False):
            losses = self._set_losses(predictions, assignments, targets)
            class_logits = decoded.queries.class_logits
            if class_logits is not None:
                activation = self.activation_loss(class_logits, targets)
                losses["loss_proposal"] = self.weights["proposal"] * activation
        return losses

    def _set_losses(
        self,
        predictions: Sequence[Prediction],
        assignments: Sequence[Assignment],
        targets: MaskTargets,
    ) -> dict[str, Tensor]:
        mask_losses, dice_losses = self._mask_losses(predictions, assignments, targets)
        suffixes = [*(f"_{index}" for index in range(len(predictions) - 1)), ""]
        losses = {}
        for index, suffix in enumerate(suffixes):
            class_loss = self._class_loss(predictions[index], assignments[index], targets)
            losses[f"loss_ce{suffix}"] = self.weights["ce"] * class_loss
            losses[f"loss_mask{suffix}"] = self.weights["mask"] * mask_losses[index]
            losses[f"loss_dice{suffix}"] = self.weights["dice"] * dice_losses[index]
        return losses

    def _class_loss(
        self, prediction: Prediction, assignment: Assignment, targets: MaskTargets
    ) -> Tensor:
        assert prediction.class_logits is not None
        class_logits = prediction.class_logits.float()
        no_object = class_logits.shape[-1] - 1
        labels = torch.full(class_logits.shape[:2], no_object, device=class_logits.device)
        labels[assignment.image_idx, assignment.src_idx] = targets.labels[assignment.tgt_idx]
        return class_cross_entropy(class_logits, labels, self.no_object_weight)

    def _mask_losses(
        self,
        predictions: Sequence[Prediction],
        assignments: Sequence[Assignment],
        targets: MaskTargets,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Binary cross-entropy and Dice loss of each set, computed for all sets at once."""
        mask_logits = torch.cat(
            [
                prediction.mask_logits[assignment.image_idx, assignment.src_idx]
                for prediction, assignment in zip(predictions, assignments)
            ]
        ).float()
        tgt_idx = torch.cat([assignment.tgt_idx for assignment in assignments])
        points = self.point_sampler.uncertain(mask_logits)
        point_logits = sample_maps(mask_logits[:, None], points)[:, 0]
        point_targets = sample_masks(targets.masks, points, tgt_idx)
        count = mean_target_count(len(targets.labels), mask_logits.device)
        sizes = [len(assignment.tgt_idx) for assignment in assignments]
        both = (
            mask_bce_loss(point_logits, point_targets),
            mask_dice_loss(point_logits, point_targets),
        )
        masks, dices = ([part.sum() / count for part in losses.split(sizes)] for losses in both)
        return masks, dices
