"""Losses of sets of detections against ground truth (Deformable DETR)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from queryseg.losses import box_giou_loss, box_l1_loss, class_focal_loss, mean_target_count
from queryseg.matching import Assignment, BoxMatcher, BoxTargets

Prediction = tuple[Tensor, Tensor]
"""Class logits (B, Q, outputs) and boxes (B, Q, 4) as cx, cy, w, h in shares of the image."""


class DetectionCriterion(nn.Module):
    """Focal class loss of all queries, L1 and generalized IoU loss of the matched ones.

    Args:
        matcher: assigns instances to queries.
        weights: of the losses `class`, `box` and `giou`.
        alpha: weight of positives in the focal loss.
        gamma: exponent of the focal loss.
    """

    def __init__(
        self,
        *,
        matcher: BoxMatcher,
        weights: Mapping[str, float],
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.weights = dict(weights)
        self.alpha = alpha
        self.gamma = gamma

    def forward(
        self,
        predictions: Sequence[Prediction],
        targets: BoxTargets,
        suffixes: Sequence[str],
        assignments: Sequence[Assignment] | None = None,
        repeats: int = 1,
    ) -> dict[str, Tensor]:
        """Weighted losses by name.

        Args:
            predictions: sets of equally many queries.
            targets: ground truth of the batch, labels as outputs of the class head.
            suffixes: what the names of the losses of each set end in.
            assignments: who stands for whom in each set; matched here if None.
            repeats: how often each instance stands for itself beyond the targets, here and not in
                other processes: only the number of instances is averaged over those.

        Returns:
            `loss_class`, `loss_box` and `loss_giou` with the suffix of each set.
        """
        if assignments is None:
            assignments = self.matcher(predictions, targets)
        device = targets.labels.device
        count = repeats * mean_target_count(len(targets.labels), device)
        losses: dict[str, Tensor] = {}
        with torch.autocast(device.type, enabled=False):
            for suffix, prediction, assignment in zip(suffixes, predictions, assignments):
                for name, value in self.terms(prediction, assignment, targets).items():
                    losses[f"loss_{name}{suffix}"] = self.weights[name] * value / count
        return losses

    def terms(
        self, prediction: Prediction, assignment: Assignment, targets: BoxTargets
    ) -> dict[str, Tensor]:
        """Sums of the three losses of one set."""
        class_logits, boxes = (x if x.dtype == torch.float64 else x.float() for x in prediction)
        place = assignment.image_idx, assignment.src_idx
        labels = torch.full(class_logits.shape[:2], class_logits.shape[-1], device=boxes.device)
        labels[place] = targets.labels[assignment.tgt_idx]
        matched = boxes[place]
        wanted = targets.boxes_cxcywh_norm[assignment.tgt_idx].to(matched.dtype)
        corners, wanted_corners = (box_convert(x, "cxcywh", "xyxy") for x in (matched, wanted))
        return {
            "class": class_focal_loss(class_logits, labels, alpha=self.alpha, gamma=self.gamma),
            "box": box_l1_loss(matched, wanted).sum(),
            "giou": box_giou_loss(corners, wanted_corners, eps=1e-12).sum(),
        }


def layer_suffixes(num_layers: int, ending: str = "") -> list[str]:
    """What the losses of decoder layers are called; those of the last have no number.

    >>> layer_suffixes(3, "_dn")
    ['_0_dn', '_1_dn', '_dn']
    """
    return [*(f"_{layer}{ending}" for layer in range(num_layers - 1)), ending]
