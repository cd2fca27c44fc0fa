"""Positional embeddings of the pixels of a map, whatever its size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from queryseg.layers import sine_position_encoding


class LearnedPositions(nn.Module):
    """A small learned grid, stretched bilinearly to the size asked for (section 3.4).

    The release leaves the grid as uninitialised memory; here it starts from N(0, 1), as the
    position embeddings of the auxiliary queries do.

    Args:
        embed_dim: C.
        num_queries: N_a; the grid's side is its rounded square root.
    """

    def __init__(self, *, embed_dim: int, num_queries: int) -> None:
        super().__init__()
        side = round(num_queries**0.5)
        self.grid = nn.Parameter(torch.randn(1, embed_dim, side, side))

    def forward(self, feature: Tensor) -> Tensor:
        """(1, C, h, w) for a map (B, C, h, w)."""
        size = feature.shape[-2:]
        return F.interpolate(self.grid, size, mode="bilinear", align_corners=False)


class SinePositions(nn.Module):
    """Sines and cosines of row and column (Table 7); nothing is learned.

    Args:
        embed_dim: C.
    """

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim

    def forward(self, feature: Tensor) -> Tensor:
        """(1, C, h, w) for a map (B, C, h, w)."""
        nothing_padded = torch.zeros_like(feature[:1, 0], dtype=torch.bool)
        return sine_position_encoding(nothing_padded, embed_dim=self.embed_dim)
