"""Assign predictions to objects by their overlap."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from detectron2.layers import nonzero_tuple


class Matcher:
    """Gives each prediction its best object, and a label by how good the match is.

    Args:
        thresholds: rising limits between the levels of quality.
        labels: label of each level, the lowest first (one more than thresholds): 0 = background,
            1 = object, -1 = ignore. A quality equal to a limit belongs to the level above it.
        allow_low_quality_matches: also label 1 the best predictions of every object, however low
            their quality.
    """

    def __init__(
        self,
        thresholds: Sequence[float],
        labels: Sequence[int],
        allow_low_quality_matches: bool = False,
    ) -> None:
        limits = [-float("inf"), *thresholds, float("inf")]
        assert limits[1] > 0, "the first threshold must be positive"
        assert all(low <= high for low, high in pairwise(limits)), f"{thresholds} do not rise"
        assert set(labels) <= {-1, 0, 1}, f"labels must be -1, 0 or 1, got {labels}"
        assert len(labels) == len(limits) - 1, f"{len(labels)} labels, {len(thresholds)} thresholds"
        self.thresholds = limits
        self.labels = labels
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Match N predictions with M objects.

        Args:
            match_quality_matrix: (M, N) qualities >= 0, for example IoU.

        Returns:
            (N,) int64 index of the best object, and (N,) int8 label. Without objects every index
            is 0 and every label that of the lowest level.
        """
        quality = match_quality_matrix
        assert quality.dim() == 2, f"expected (M, N), got {tuple(quality.shape)}"
        if quality.numel() == 0:
            matches = quality.new_zeros(quality.shape[1], dtype=torch.int64)
            return matches, torch.full_like(matches, self.labels[0], dtype=torch.int8)
        assert torch.all(quality >= 0), "match qualities must not be negative"
        best, matches = quality.max(dim=0)
        match_labels = torch.ones_like(matches, dtype=torch.int8)
        for label, (low, high) in zip(self.labels, pairwise(self.thresholds)):
            match_labels[(best >= low) & (best < high)] = label
        if self.allow_low_quality_matches:
            self.set_low_quality_matches_(match_labels, quality)
        return matches, match_labels

    def set_low_quality_matches_(self, match_labels: Tensor, match_quality_matrix: Tensor) -> None:
        """Set the label of each object's best predictions, ties included, to 1 in place.

        Their object stays the one they overlap most (https://arxiv.org/abs/1506.01497, 3.1.2).
        """
        best_per_object = match_quality_matrix.amax(dim=1, keepdim=True)
        _, predictions = nonzero_tuple(match_quality_matrix == best_per_object)
        match_labels[predictions] = 1
