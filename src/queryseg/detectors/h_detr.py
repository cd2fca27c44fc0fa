"""H-Deformable-DETR: one-to-one matching, helped in training by a one-to-many branch."""

from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor

from queryseg.detectors.contract import Detected
from queryseg.detectors.criterion import Prediction, layer_suffixes
from queryseg.detectors.two_stage import TwoStageDetector
from queryseg.matching import BoxTargets


class HDETR(TwoStageDetector):
    """H-Deformable-DETR with its hybrid branch (Jia et al., CVPR 2023).

    In training the encoder proposes more boxes; the further queries form a second set, blind to
    the first and unseen by it, in which every instance is wanted several times.

    Args:
        num_one_to_many: queries of the second set.
        repeats: how often an instance is wanted there.
        one_to_many_weight: weight of its losses.
        kwargs: those of `TwoStageDetector`.
    """

    def __init__(
        self,
        *,
        num_one_to_many: int = 1500,
        repeats: int = 6,
        one_to_many_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_one_to_many = num_one_to_many
        self.repeats = repeats
        self.one_to_many_weight = one_to_many_weight

    def learn(self, images: ImageList, targets: BoxTargets) -> tuple[dict[str, Tensor], Detected]:
        """Losses of both sets and of the proposals, and what the first set detects."""
        encoded = self.encode(images)
        proposals = self.proposals(encoded.memory, self.num_queries + self.num_one_to_many)
        assert proposals.boxes is not None
        queries = self.queries(proposals.references)
        decoded = self.decoder(queries, encoded.memory, self.isolation(queries.query_feats))
        predictions = self.predictions(decoded)
        first, second = (
            [(logits[:, part], boxes[:, part]) for logits, boxes in predictions]
            for part in (slice(self.num_queries), slice(self.num_queries, None))
        )
        proposed = [(proposals.class_logits, proposals.boxes)]
        losses = self.criterion(first, targets, layer_suffixes(len(first)))
        losses |= self.criterion(proposed, targets.without_classes(), ["_enc"])
        if self.num_one_to_many:
            losses |= self._one_to_many(second, targets)
        return losses, self.describe(encoded, decoded)

    def isolation(self, query_feats: Tensor) -> Tensor | None:
        """(Q, Q) bool, True where queries belong to the same set; None for a single set."""
        if not self.num_one_to_many:
            return None
        second = torch.arange(query_feats.shape[1], device=query_feats.device) >= self.num_queries
        return second[:, None] == second

    def _one_to_many(self, predictions: list[Prediction], targets: BoxTargets) -> dict[str, Tensor]:
        suffixes = layer_suffixes(len(predictions), "_one2many")
        losses = self.criterion(predictions, repeat_targets(targets, self.repeats), suffixes)
        return {name: self.one_to_many_weight * value for name, value in losses.items()}


def repeat_targets(targets: BoxTargets, times: int) -> BoxTargets:
    """All instances of each image one after the other, and again."""
    rows = torch.arange(len(targets.labels), device=targets.labels.device).split(targets.sizes)
    index = torch.cat([image.repeat(times) for image in rows])
    return BoxTargets(
        targets.labels[index],
        targets.boxes_xyxy_abs[index],
        targets.image_sizes,
        tuple(size * times for size in targets.sizes),
    )
