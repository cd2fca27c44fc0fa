"""Losses of the coarse masks, of the detector and of the refined labels (equation 2)."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from queryseg.losses import mask_dice_loss
from queryseg.mask_refinement.box_targets import BoxTargets
from queryseg.mask_refinement.incoherent_targets import incoherent_tree, outline_cells


class IncoherenceTargets(Protocol):
    """What the detector is to find in training."""

    def __call__(self, targets: BoxTargets, sizes: Sequence[int]) -> list[Tensor]:
        """Bool maps (N, 1, size, size), one for each size."""


class LossyPixelTargets:
    """The release's: what bilinear halving loses on the image, pooled into the box.

    Args:
        threshold: share from which on a cell is incoherent.
        signed: as in the code that the released COCO weights were trained with.
    """

    def __init__(self, *, threshold: float = 0.05, signed: bool = False) -> None:
        self.threshold = threshold
        self.signed = signed

    def __call__(self, targets: BoxTargets, sizes: Sequence[int]) -> list[Tensor]:
        """See `IncoherenceTargets`."""
        return [targets.lossy_cells(size, self.threshold, signed=self.signed) for size in sizes]


class EquationOneTargets:
    """The paper's: equation 1 on every grid of a box, with jitter along the border.

    Args:
        jitter: cells that regions are moved by; the paper gives no number.
    """

    def __init__(self, *, jitter: int = 1) -> None:
        self.jitter = jitter

    def __call__(self, targets: BoxTargets, sizes: Sequence[int]) -> list[Tensor]:
        """See `IncoherenceTargets`."""
        return incoherent_tree([targets.cropped(2 * size) for size in sizes], self.jitter)


class OutlineTargets:
    """The outlines of the masks on every grid (the boundary regions of Table 2)."""

    def __call__(self, targets: BoxTargets, sizes: Sequence[int]) -> list[Tensor]:
        """See `IncoherenceTargets`."""
        return [outline_cells(targets.cropped(size)) for size in sizes]


class RefinementCriterion:
    """Weighted losses under the names of the release.

    Args:
        weights: of `mask`, `uncertain`, `refine`, and `semantic` and `bound` where the model has
            these branches.
        incoherence: targets of the detector.
        dice: add the Dice loss to the detector's cross-entropy, as in the release.
        probability_form: take the detector's cross-entropy of probabilities, as in the release: a
            logit that float32 rounds to certainty then costs 100 instead of its size.
        reference_labels: learn the labels of reference tokens too, as in the release.
    """

    def __init__(
        self,
        *,
        weights: Mapping[str, float],
        incoherence: IncoherenceTargets,
        dice: bool = True,
        probability_form: bool = True,
        reference_labels: bool = True,
    ) -> None:
        self.weights = dict(weights)
        self.incoherence = incoherence
        self.dice = dice
        self.probability_form = probability_form
        self.reference_labels = reference_labels

    def mask_loss(self, mask_logits: Tensor, masks: Tensor) -> Tensor:
        """Cross-entropy of coarse masks, both (N, 1, m, m)."""
        return self.weights["mask"] * _cross_entropy(mask_logits, masks)

    def boundary_loss(self, boundary_logits: Tensor, masks: Tensor) -> Tensor:
        """Cross-entropy of outlines, counted twice as in the release; both (N, 1, m, m)."""
        return self.weights["bound"] * 2 * _cross_entropy(boundary_logits, outline_cells(masks))

    def semantic_loss(self, logits: Tensor, foreground: Tensor) -> Tensor:
        """Cross-entropy of foreground pixels, both (B, 1, h, w)."""
        return self.weights["semantic"] * _cross_entropy(logits, foreground)

    def uncertain_loss(self, logits: Sequence[Tensor], regions: Sequence[Tensor]) -> Tensor:
        """Of incoherent regions, (N, 1, size, size) each; the mean over the levels."""
        losses = []
        for level, region in zip(logits, regions):
            form = _certain_cross_entropy if self.probability_form else _cross_entropy
            loss = form(level, region)
            if self.dice:
                loss = loss + mask_dice_loss(level.float().flatten(1), region.flatten(1)).mean()
            losses.append(loss)
        return self.weights["uncertain"] * torch.stack(losses).mean()

    def refine_loss(self, labels: Tensor, truth: Tensor, is_reference: Tensor) -> Tensor:
        """L1 distance of refined labels, all (T,)."""
        distance = (labels - truth.to(labels.dtype)).abs()
        if not self.reference_labels:
            distance = distance[~is_reference]
        return self.weights["refine"] * distance.sum() / max(distance.numel(), 1)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), target.float())


def _certain_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Of probabilities; outside autocast, which refuses it on CUDA."""
    with torch.autocast(logits.device.type, enabled=False):
        return F.binary_cross_entropy(logits.float().sigmoid(), target.float())
