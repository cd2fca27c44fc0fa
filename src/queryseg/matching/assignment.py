"""Optimal one-to-one assignment of predictions to ground truth."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.utils.logger import log_every_n_seconds
from scipy.optimize import linear_sum_assignment
from torch import Tensor

FORBIDDEN_COST = 1e6
"""What a cost that is not finite counts as: far above every real cost, exact in float32."""


@dataclass(frozen=True)
class Assignment:
    """Which predictions of a batch stand for which ground-truth instances.

    Entries are sorted by image, then by prediction. `tgt_idx` counts through the instances of the
    whole batch, as `MaskTargets` holds them.

    Args:
        image_idx: (N,) int64 image of each pair.
        src_idx: (N,) int64 prediction within the image.
        tgt_idx: (N,) int64 instance within the batch.
        sizes: number of instances of each image.
    """

    image_idx: Tensor
    src_idx: Tensor
    tgt_idx: Tensor
    sizes: tuple[int, ...]

    def of_image(self, image: int) -> tuple[Tensor, Tensor]:
        """(n,) predictions and (n,) instances of one image, both counted within the image."""
        chosen = self.image_idx == image
        return self.src_idx[chosen], self.tgt_idx[chosen] - sum(self.sizes[:image])


class CostSanitizer:
    """Counts the cost entries that were not finite and replaces them by `FORBIDDEN_COST`.

    A matching cannot be solved with NaN, and one broken prediction must not stop a training run
    before the trainer can name the loss that broke; so the entry is priced out and reported.
    """

    def __init__(self) -> None:
        self.replaced = 0

    def __call__(self, cost: Tensor) -> Tensor:
        """`cost` with finite entries only."""
        finite = cost.isfinite()
        broken = int(finite.numel() - finite.sum())
        if not broken:
            return cost
        self.replaced += broken
        log_every_n_seconds(
            logging.WARNING,
            f"matching: {broken} of {cost.numel()} costs were not finite "
            f"({self.replaced} since the start); such pairs are avoided",
            n=10,
        )
        return cost.masked_fill(~finite, FORBIDDEN_COST)


sanitize_costs = CostSanitizer()
"""The counter shared by all matchers of this process."""


def solve_assignments(cost: Tensor, sizes: Sequence[int]) -> list[Assignment]:
    """Cheapest one-to-one assignment of several cost arrays of one batch (Hungarian algorithm).

    All arrays travel to the CPU together, so the device is waited for once.
    Where an image has more instances than there are predictions, the dearest of them go without
    one, and a warning says how many.

    Args:
        cost: (G, B, Q, N), one array for each of G sets of predictions; column n of image b counts
            where n < sizes[b].
        sizes: number of instances of each image.

    Returns:
        G assignments; image b has min(Q, sizes[b]) pairs in each.
    """
    _warn_about_unmatched(cost.shape[2], sizes)
    offsets = [sum(sizes[:image]) for image in range(len(sizes))]
    assignments = []
    for one_set in sanitize_costs(cost.detach().float().cpu()):
        image_idx, src_idx, tgt_idx = [], [], []
        for image, (image_cost, size) in enumerate(zip(one_set, sizes)):
            rows, columns = linear_sum_assignment(image_cost[:, :size].numpy())
            image_idx.append(torch.full((len(rows),), image))
            src_idx.append(torch.as_tensor(rows))
            tgt_idx.append(torch.as_tensor(columns) + offsets[image])
        images, sources, instances = (
            torch.cat(part).long().to(cost.device) for part in (image_idx, src_idx, tgt_idx)
        )
        assignments.append(Assignment(images, sources, instances, tuple(sizes)))
    return assignments


def _warn_about_unmatched(num_predictions: int, sizes: Sequence[int]) -> None:
    left_over = sum(max(0, size - num_predictions) for size in sizes)
    if left_over:
        log_every_n_seconds(
            logging.WARNING,
            f"matching: {left_over} of the {sum(sizes)} instances of this batch are not learned "
            f"from, since an image has {max(sizes)} and the model only {num_predictions} queries; "
            "give the model more queries",
            n=10,
        )
