"""DINO: proposals ranked by class, learned contents, contrastive denoising."""

from dataclasses import replace
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor

from queryseg.deformable_detr import Proposals, Queries
from queryseg.detectors.contract import Detected
from queryseg.detectors.criterion import Prediction, layer_suffixes
from queryseg.detectors.denoising import Denoising, NoisyQueries
from queryseg.detectors.two_stage import TwoStageDetector
from queryseg.matching import BoxTargets


class DINO(TwoStageDetector):
    """DINO (Zhang et al., ICLR 2023).

    In training, queries made from spoilt ground truth go through the decoder beside the others, and
    learn what they were made from.

    Args:
        denoising: makes them; None to do without.
        kwargs: those of `TwoStageDetector`.
    """

    def __init__(self, *, denoising: Denoising | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.denoising = denoising

    def learn(self, images: ImageList, targets: BoxTargets) -> tuple[dict[str, Tensor], Detected]:
        """Losses of queries, noisy queries and proposals, and what the queries detect."""
        encoded = self.encode(images)
        proposals = self.proposals(encoded.memory, self.num_queries)
        queries = self.queries(proposals.references)
        noisy = None if self.denoising is None else self.denoising(targets)
        first = 0 if noisy is None else noisy.count
        if noisy is not None:
            visible = noisy.visibility(queries.query_feats.shape[1])
            queries = _joined(noisy, queries)
        decoded = self.decoder(queries, encoded.memory, None if noisy is None else visible)
        predictions = self.predictions(decoded)
        ordinary = [(logits[:, first:], boxes[:, first:]) for logits, boxes in predictions]
        losses = self.criterion(ordinary, targets, layer_suffixes(len(ordinary)))
        losses |= self.criterion([_chosen(proposals)], targets, ["_enc"])
        if noisy is not None:
            losses |= self._denoising_losses(predictions, noisy, targets)
        return losses, self.describe(encoded, decoded, first)

    def _denoising_losses(
        self, predictions: list[Prediction], noisy: NoisyQueries, targets: BoxTargets
    ) -> dict[str, Tensor]:
        predictions = [
            (logits[:, : noisy.count], boxes[:, : noisy.count]) for logits, boxes in predictions
        ]
        assignment = noisy.assignment(targets)
        return self.criterion(
            predictions,
            targets,
            layer_suffixes(len(predictions), "_dn"),
            [assignment] * len(predictions),
            repeats=noisy.num_groups,
        )


def _joined(noisy: NoisyQueries, queries: Queries) -> Queries:
    """Noisy queries first."""
    references = noisy.references.to(queries.references)
    feats = noisy.query_feats.to(queries.query_feats)
    return replace(
        queries,
        query_feats=torch.cat((feats, queries.query_feats), dim=1),
        references=torch.cat((references, queries.references), dim=1),
    )


def _chosen(proposals: Proposals) -> Prediction:
    """Class logits and boxes of the proposals that became queries."""
    assert proposals.boxes is not None
    index = proposals.token_idx[..., None]
    logits, boxes = proposals.class_logits, proposals.boxes
    return (
        logits.gather(1, index.expand(-1, -1, logits.shape[-1])),
        boxes.gather(1, index.expand(-1, -1, 4)),
    )
