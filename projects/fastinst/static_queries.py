"""Queries that no classification head guides: zero, learned, or a resized map (Table 2)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from queryseg.projects.fastinst.initial_queries import InitialQueries


class LearnedQueries(nn.Module):
    """The same queries for every image, as in Mask2Former; with zero content, as in DETR.

    Positions are learned in both. Such queries have no place in the image, so neither the
    instance activation loss nor the location cost exists with them.

    Args:
        embed_dim: C.
        num_queries: N_a.
        zero_content: start from zeros instead of learned content.
    """

    def __init__(self, *, embed_dim: int, num_queries: int, zero_content: bool = False) -> None:
        super().__init__()
        self.position = nn.Embedding(num_queries, embed_dim)
        self.content = None if zero_content else nn.Embedding(num_queries, embed_dim)

    def forward(
        self, pyramid: Sequence[Tensor], positions: Callable[[Tensor], Tensor]
    ) -> InitialQueries:
        """The queries, repeated for each image; `positions` is not read."""
        batch = len(pyramid[0])
        position = self.position.weight
        content = torch.zeros_like(position) if self.content is None else self.content.weight
        return InitialQueries(content.expand(batch, -1, -1), position.expand(batch, -1, -1))


class ResizedQueries(nn.Module):
    """A level of the pyramid, shrunk to one query per cell of a square grid, as in OSFormer.

    The paper does not say which map is resized, nor how. Here it is the level that activation
    queries use, bilinearly; the cell centres are the locations, so the location cost stays.

    Args:
        num_queries: N_a; the grid's side is its rounded square root.
        level: pyramid level, 0 the finest.
    """

    def __init__(self, *, num_queries: int, level: int = 1) -> None:
        super().__init__()
        self.side = round(num_queries**0.5)
        self.level = level

    def forward(
        self, pyramid: Sequence[Tensor], positions: Callable[[Tensor], Tensor]
    ) -> InitialQueries:
        """One query per cell, row by row."""
        feature = pyramid[self.level]
        size = (self.side, self.side)
        feats = F.interpolate(feature, size, mode="bilinear", align_corners=False)
        position = positions(feats).flatten(2).mT
        centres = (torch.arange(self.side, device=feature.device) + 0.5) / self.side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        locations = torch.stack((x, y), dim=-1).flatten(0, 1)
        batch = len(feature)
        return InitialQueries(
            feats=feats.flatten(2).mT,
            position=position.expand(batch, -1, -1),
            locations=locations.expand(batch, -1, -1),
        )
