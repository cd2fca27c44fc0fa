"""Learning whom a box of the key frame shows: one of the reference frame, or somebody new."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from queryseg.matching import Assignment
from queryseg.projects.queryinst.track_head import match_logits

NEW = 0
"""The class of a box whose object is not in the reference frame."""


class TrackLoss(nn.Module):
    """Cross entropy over the objects of the reference frame and "new" (MaskTrack R-CNN).

    Args:
        weight: of the loss.
    """

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(
        self,
        embeddings: Tensor,
        matched: Assignment,
        track_ids: Sequence[Tensor],
        reference_embeddings: Sequence[Tensor],
        reference_track_ids: Sequence[Tensor],
    ) -> Tensor:
        """Weighted loss: the mean over the boxes of a key frame, then over the batch.

        Args:
            embeddings: (P, D) of the matched boxes of all key frames.
            matched: which object of which key frame each of them shows.
            track_ids: per key frame (n,) int64, of its objects.
            reference_embeddings: per reference frame (m, D), of its objects.
            reference_track_ids: per reference frame (m,) int64.
        """
        own_ids = torch.cat(list(track_ids))[matched.tgt_idx]
        losses = []
        for image, (known, known_ids) in enumerate(zip(reference_embeddings, reference_track_ids)):
            here = matched.image_idx == image
            logits = match_logits(embeddings[here], known)
            targets = reference_index(own_ids[here], known_ids)
            # A sum over no box is a zero with a gradient, where a mean would not be a number.
            loss = F.cross_entropy(logits.float(), targets, reduction="sum")
            losses.append(loss / max(len(targets), 1))
        return self.weight * torch.stack(losses).mean()


def reference_index(track_ids: Tensor, known_ids: Tensor) -> Tensor:
    """1 + where each track stands in the reference frame; `NEW` where it does not.

    >>> reference_index(torch.tensor([7, 5, 9]), torch.tensor([5, 7]))
    tensor([2, 1, 0])
    """
    same = track_ids[:, None] == known_ids
    places = torch.arange(1, len(known_ids) + 1, device=track_ids.device)
    return (same * places).sum(dim=1)
