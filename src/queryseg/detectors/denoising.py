"""Contrastive denoising: queries made from spoilt ground truth (DINO, section 3.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from queryseg.matching import Assignment, BoxTargets


@dataclass(frozen=True)
class NoisyQueries:
    """Queries that stand for known instances, in groups of equal length.

    A group has a positive query for each instance, then a negative one for each, both filled up to
    the largest number of instances in an image.

    Args:
        query_feats: (B, P, C).
        references: (B, P, 4) cx, cy, w, h.
        num_groups: G.
        slots: places for instances; P = 2 * G * slots.
    """

    query_feats: Tensor
    references: Tensor
    num_groups: int
    slots: int

    @property
    def count(self) -> int:
        """P."""
        return self.query_feats.shape[1]

    def visibility(self, num_queries: int) -> Tensor:
        """(P + Q, P + Q) bool, True where a query may look.

        Ordinary queries do not see the noisy ones; these see ordinary ones and their own group.
        """
        length = self.count + num_queries
        group = torch.arange(length, device=self.references.device) // max(2 * self.slots, 1)
        ordinary = torch.arange(length, device=group.device) >= self.count
        return (group[:, None] == group) & ~ordinary | ordinary

    def assignment(self, targets: BoxTargets) -> Assignment:
        """Who stands for whom: the positive queries of all groups for their instance."""
        groups = torch.arange(self.num_groups, device=targets.labels.device)
        query = groups[:, None] * (2 * self.slots) + targets.slot_idx
        instance = torch.arange(len(targets.labels), device=groups.device).expand_as(query)
        image = targets.image_idx.expand_as(query)
        return Assignment(image.flatten(), query.flatten(), instance.flatten(), targets.sizes)


class Denoising(nn.Module):
    """Makes noisy queries from ground truth.

    Labels are replaced at random; boxes are moved and scaled by up to `box_noise` of half their
    size at each corner, those of negatives by once to twice as much.

    Args:
        num_outputs: of the class heads.
        embed_dim: C.
        num_queries: positive queries of the fullest image, roughly; as many groups as fit.
        label_noise: twice the share of labels that are replaced.
        box_noise: how far boxes move.
        num_embeddings: entries of the label embedding, of which `num_outputs` are used; one more
            than those by default, as in the release.
    """

    def __init__(
        self,
        *,
        num_outputs: int,
        embed_dim: int = 256,
        num_queries: int = 100,
        label_noise: float = 0.5,
        box_noise: float = 0.4,
        num_embeddings: int | None = None,
    ) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.num_queries = num_queries
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.label_embed = nn.Embedding(num_embeddings or num_outputs + 1, embed_dim)

    def forward(self, targets: BoxTargets) -> NoisyQueries:
        """Spoil the ground truth of a batch, anew for every group."""
        slots = max(targets.sizes, default=0)
        groups = max(self.num_queries // max(slots, 1), 1)
        size = (groups, 2, len(targets.labels))
        labels = self._noisy_labels(targets.labels.expand(size))
        boxes = self._noisy_boxes(targets.boxes_cxcywh_norm.expand(*size, 4))
        feats = self.label_embed(labels)
        shape = (len(targets.sizes), groups, 2, slots)
        query_feats = feats.new_zeros(*shape, feats.shape[-1])
        references = boxes.new_full((*shape, 4), 0.5)
        place = targets.image_idx, slice(None), slice(None), targets.slot_idx
        query_feats[place] = feats.movedim(2, 0)
        references[place] = boxes.movedim(2, 0)
        # An image without instances still has to reach the embedding.
        reach = 0.0 * self.label_embed.weight[0, 0]
        return NoisyQueries(
            query_feats.flatten(1, 3) + reach, references.flatten(1, 3), groups, slots
        )

    def _noisy_labels(self, labels: Tensor) -> Tensor:
        replaced = torch.rand(labels.shape, device=labels.device) < 0.5 * self.label_noise
        return torch.where(replaced, torch.randint_like(labels, self.num_outputs), labels)

    def _noisy_boxes(self, boxes: Tensor) -> Tensor:
        """(G, 2, T, 4): positives, then negatives."""
        corners = box_convert(boxes, "cxcywh", "xyxy")
        reach = boxes[..., 2:].repeat(1, 1, 1, 2) / 2
        amount = torch.rand_like(corners)
        amount[:, 1] += 1
        sign = 2.0 * torch.randint_like(corners, 2) - 1
        moved = (corners + sign * amount * reach * self.box_noise).clamp(0, 1)
        return box_convert(moved, "xyxy", "cxcywh")
