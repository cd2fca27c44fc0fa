"""Training losses of SOIT (section 3.4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from queryseg.losses import box_giou_loss, box_l1_loss, class_focal_loss, mean_target_count
from queryseg.matching import Assignment, BoxMatcher, BoxTargets
from queryseg.projects.soit.mask_branch import MatchedMasks
from queryseg.projects.soit.mask_loss import MaskLoss
from queryseg.projects.soit.prediction import Prediction


@dataclass(frozen=True)
class Matched:
    """Which query stands for which instance.

    Args:
        layers: of each decoder layer.
        proposals: of the encoder's tokens, whatever the class; None without proposals.
        count: instances of the batch, averaged over the processes, at least one.
    """

    layers: list[Assignment]
    proposals: Assignment | None
    count: float


class SOITCriterion(nn.Module):
    """Class, box and mask losses of all decoder layers, class and box losses of the proposals.

    Losses of the last layer carry no suffix, those of layer l before it `_l`, those of the
    proposals `_enc`. All are sums over the batch, divided by its number of instances: the mean of
    all processes, at least one.

    Args:
        matcher: assigns instances to queries, by class and box alone.
        mask_loss: the two mask losses.
        weights: of the losses `class`, `box`, `giou`, `dice` and `bce`.
        alpha: of the focal loss.
        gamma: of the focal loss.
    """

    def __init__(
        self,
        *,
        matcher: BoxMatcher,
        mask_loss: MaskLoss,
        weights: Mapping[str, float],
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.mask_loss = mask_loss
        self.weights = dict(weights)
        self.alpha = alpha
        self.gamma = gamma

    def match(self, prediction: Prediction, targets: BoxTargets) -> Matched:
        """Match every decoder layer, and the proposals with the instances as one class."""
        sets = list(zip(prediction.class_logits, prediction.decoded.boxes))
        layers = self.matcher(sets, targets)
        count = mean_target_count(len(targets.labels), targets.labels.device)
        proposed = prediction.proposals
        if proposed is None:
            return Matched(layers, None, count)
        assert proposed.boxes is not None
        (proposals,) = self.matcher(
            [(proposed.class_logits, proposed.boxes)], targets.without_classes()
        )
        return Matched(layers, proposals, count)

    def detection_losses(
        self, prediction: Prediction, matched: Matched, targets: BoxTargets
    ) -> dict[str, Tensor]:
        """Weighted class and box losses of all stages."""
        losses = {}
        sets = zip(prediction.class_logits, prediction.decoded.boxes, matched.layers)
        for suffix, stage in zip(self._suffixes(len(matched.layers)), sets):
            losses |= self._stage_losses(suffix, *stage, targets, matched.count)
        if prediction.proposals is not None and matched.proposals is not None:
            proposed = prediction.proposals
            assert proposed.boxes is not None
            losses |= self._stage_losses(
                "_enc",
                proposed.class_logits,
                proposed.boxes,
                matched.proposals,
                targets.without_classes(),
                matched.count,
            )
        return losses

    def mask_losses(
        self,
        masks: MatchedMasks,
        gt_masks: Sequence[Tensor],
        padded_size: tuple[int, int],
        valid_sizes: Tensor,
        count: float,
    ) -> dict[str, Tensor]:
        """Weighted mask losses of the layers that learn masks.

        Args:
            masks: predictions of the matched queries.
            gt_masks: of each image (n, h, w) bool.
            padded_size: height and width of the batch.
            valid_sizes: (B, 2) int64, rows and columns of the predictions that are no padding.
            count: instances that the losses are divided by.
        """
        with torch.autocast(masks.mask_logits.device.type, enabled=False):
            both = self.mask_loss(masks, gt_masks, padded_size=padded_size, valid_sizes=valid_sizes)
        losses = {}
        for name, values in zip(("dice", "bce"), both):
            sums = values.new_zeros(masks.layers.stop).index_add(0, masks.layer_idx, values)
            weighted = self.weights[name] * sums / count
            for layer in masks.layers:
                suffix = self._suffixes(masks.layers.stop)[layer]
                losses[f"loss_{name}{suffix}"] = weighted[layer]
        return losses

    def _stage_losses(
        self,
        suffix: str,
        class_logits: Tensor,
        boxes: Tensor,
        assignment: Assignment,
        targets: BoxTargets,
        count: float,
    ) -> dict[str, Tensor]:
        with torch.autocast(boxes.device.type, enabled=False):
            dtype = torch.promote_types(boxes.dtype, torch.float32)
            class_logits, boxes = class_logits.to(dtype), boxes.to(dtype)
            image_idx, src_idx, tgt_idx = (
                assignment.image_idx,
                assignment.src_idx,
                assignment.tgt_idx,
            )
            labels = torch.full_like(class_logits[..., 0], class_logits.shape[-1]).long()
            labels[image_idx, src_idx] = targets.labels[tgt_idx]
            matched = boxes[image_idx, src_idx]
            corners = box_convert(matched, "cxcywh", "xyxy") * targets.scales[image_idx]
            sums = {
                "class": class_focal_loss(class_logits, labels, alpha=self.alpha, gamma=self.gamma),
                "box": box_l1_loss(matched, targets.boxes_cxcywh_norm[tgt_idx]).sum(),
                "giou": box_giou_loss(corners, targets.boxes_xyxy_abs[tgt_idx]).sum(),
            }
        return {
            f"loss_{name}{suffix}": self.weights[name] * value / count
            for name, value in sums.items()
        }

    def _suffixes(self, num_layers: int) -> list[str]:
        return [*(f"_{layer}" for layer in range(num_layers - 1)), ""]
