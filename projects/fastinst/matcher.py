"""Hungarian matching of query predictions with ground-truth instances."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from queryseg.losses import PointSampler, sample_maps, sample_masks
from queryseg.matching import (
    Assignment,
    MaskTargets,
    cost_class,
    cost_dice,
    cost_mask,
    solve_assignments,
)
from queryseg.projects.fastinst.prediction_head import Prediction


class QueryMatcher(nn.Module):
    """Assign each instance the query whose class, mask and place fit best (section 3.6).

    Runs in float32 and without gradients. Each image and each set of predictions draws its own
    points, shared by all queries and instances of the image.

    Args:
        weight_class: weight of minus the class probability.
        weight_mask: weight of the binary cross-entropy at the points.
        weight_dice: weight of the Dice loss at the points.
        weight_location: weight of minus one for queries picked inside the instance.
        point_sampler: draws the points.
    """

    def __init__(
        self,
        *,
        weight_class: float,
        weight_mask: float,
        weight_dice: float,
        weight_location: float,
        point_sampler: PointSampler,
    ) -> None:
        super().__init__()
        self.weight_class = weight_class
        self.weight_mask = weight_mask
        self.weight_dice = weight_dice
        self.weight_location = weight_location
        self.point_sampler = point_sampler

    @torch.no_grad()
    def forward(
        self, predictions: Sequence[Prediction], locations: Tensor | None, targets: MaskTargets
    ) -> list[Assignment]:
        """Match several sets of predictions of one batch.

        Args:
            predictions: the sets; class logits have to be there.
            locations: (B, Q, 2) where the queries were picked, x, y in [0, 1]; None if nowhere,
                which leaves out the location term.
            targets: ground truth of the batch.

        Returns:
            One assignment for each set.
        """
        device_type = targets.masks.device.type
        with torch.autocast(device_type, enabled=False):
            shared = self._location_cost(locations, targets)
            costs = [self._cost(prediction, targets) + shared for prediction in predictions]
            return solve_assignments(torch.stack(costs), targets.sizes)

    def _location_cost(self, locations: Tensor | None, targets: MaskTargets) -> Tensor | float:
        if locations is None:
            return 0.0
        touched = sample_masks(targets.masks, locations[targets.image_idx]) > 0
        return -self.weight_location * targets.padded(touched.float()).mT

    def _cost(self, prediction: Prediction, targets: MaskTargets) -> Tensor:
        """(B, Q, N) cost of one set without the location term."""
        assert prediction.class_logits is not None
        mask_logits = prediction.mask_logits.float()
        points = self.point_sampler.uniform(len(mask_logits), mask_logits.device)
        point_logits = sample_maps(mask_logits, points)
        point_targets = targets.padded(sample_masks(targets.masks, points[targets.image_idx]))
        class_probs = prediction.class_logits.float().softmax(-1)
        return (
            self.weight_mask * cost_mask(point_logits, point_targets)
            + self.weight_class * cost_class(class_probs, targets.padded(targets.labels))
            + self.weight_dice * cost_dice(point_logits, point_targets)
        )
