"""Instance activation loss: teaches the auxiliary classification head where objects are."""

from typing import Literal

import torch
from torch import Tensor, nn

from queryseg.losses import class_cross_entropy
from queryseg.matching import Assignment, MaskTargets, cost_class, solve_assignments
from queryseg.projects.fastinst.mask_cells import corner_pixels, touched_cells

ActivationTarget = Literal["matched", "dense"]


class PixelMatcher(nn.Module):
    """Assign each instance one pixel, by class probability and place (section 3.3).

    Args:
        weight_class: weight of minus the class probability.
        weight_location: weight of minus one for pixels whose cell the instance touches.
    """

    def __init__(self, *, weight_class: float, weight_location: float) -> None:
        super().__init__()
        self.weight_class = weight_class
        self.weight_location = weight_location

    @torch.no_grad()
    def forward(self, class_logits: Tensor, targets: MaskTargets) -> Assignment:
        """Match the pixels of (B, K+1, h, w) logits; `src_idx` is a flat index into (h, w)."""
        with torch.autocast(class_logits.device.type, enabled=False):
            class_probs = class_logits.float().softmax(1).flatten(2).mT
            touched = touched_cells(targets.masks, class_logits.shape[-2:])
            cost = self.weight_class * cost_class(class_probs, targets.padded(targets.labels))
            cost = cost - self.weight_location * targets.padded(touched.float()).mT
            return solve_assignments(cost[None], targets.sizes)[0]


class InstanceActivationLoss(nn.Module):
    """Cross-entropy of the auxiliary head over all pixels of its map (equation 3).

    Args:
        matcher: assigns one pixel to each instance.
        target: "matched": the matched pixels have the class of their instance, all others are "no
            object". "dense": every pixel has the class of the instance that covers it (Table 6f);
            the map is sampled at the top left of each cell and the smaller instance wins an
            overlap, neither of which the paper tells.
        balanced: weigh "no object" by one over the number of pixels (paper) instead of one
            (release).
    """

    def __init__(
        self,
        *,
        matcher: PixelMatcher,
        target: ActivationTarget = "matched",
        balanced: bool = False,
    ) -> None:
        super().__init__()
        if target not in ("matched", "dense"):
            raise ValueError(f"target is {target!r}; expected 'matched' or 'dense'")
        self.matcher = matcher
        self.target = target
        self.balanced = balanced

    def forward(self, class_logits: Tensor, targets: MaskTargets) -> Tensor:
        """The loss as a scalar.

        Args:
            class_logits: (B, K+1, h, w), "no object" last.
            targets: ground truth of the batch.
        """
        labels = (
            self._matched_labels(class_logits, targets)
            if self.target == "matched"
            else _covering_labels(class_logits, targets)
        )
        weight = 1 / labels[0].numel() if self.balanced else 1.0
        return class_cross_entropy(class_logits.float().flatten(2).mT, labels, weight)

    def _matched_labels(self, class_logits: Tensor, targets: MaskTargets) -> Tensor:
        matched = self.matcher(class_logits, targets)
        labels = _no_object(class_logits)
        labels[matched.image_idx, matched.src_idx] = targets.labels[matched.tgt_idx]
        return labels


def _no_object(class_logits: Tensor) -> Tensor:
    """(B, h * w) int64 labels, all "no object"."""
    batch, channels, height, width = class_logits.shape
    return torch.full((batch, height * width), channels - 1, device=class_logits.device)


def _covering_labels(class_logits: Tensor, targets: MaskTargets) -> Tensor:
    """(B, h * w) int64: the class of the smallest instance over each pixel."""
    small = corner_pixels(targets.masks, class_logits.shape[-2:])
    labels = _no_object(class_logits)
    largest_first = targets.masks.flatten(1).sum(1).argsort(descending=True)
    for index in largest_first.tolist():
        labels[targets.image_idx[index], small[index]] = targets.labels[index]
    return labels
