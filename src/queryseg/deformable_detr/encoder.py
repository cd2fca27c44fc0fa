"""Deformable Transformer encoder: the tokens of a pyramid read from all its levels."""

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor, nn

from queryseg.deformable_detr.attention import DeformableAttention
from queryseg.deformable_detr.pyramid import SpatialShapes, cell_centres
from queryseg.layers import Activation, FeedForwardBlock


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward block, each followed by its norm.

    Args:
        embed_dim: C.
        num_heads: attention heads.
        num_levels: L.
        num_points: points each head reads from each level.
        ffn_dim: hidden width of the feed-forward block.
        dropout: on the outputs of both blocks and inside the second.
        activation: inside the feed-forward block.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        ffn_dim: int,
        dropout: float = 0.0,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.attention = DeformableAttention(
            embed_dim=embed_dim,
            num_heads=num_heads,
            num_levels=num_levels,
            num_points=num_points,
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.ffn = FeedForwardBlock(
            embed_dim=embed_dim, hidden_dim=ffn_dim, dropout=dropout, activation=activation
        )

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        reference_points: Tensor,
        spatial_shapes: SpatialShapes,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Update tokens (B, S, C); the other arguments as in `DeformableEncoder`."""
        gathered = self.attention(
            tokens + position, reference_points, tokens, spatial_shapes, padding_mask
        )
        return self.ffn(self.norm(tokens + self.dropout(gathered)))


class DeformableEncoder(nn.Module):
    """A stack of deformable encoder layers (Deformable DETR, section 4.1).

    Args:
        num_layers: how many.
        embed_dim: C.
        num_heads: attention heads.
        num_levels: L.
        num_points: points each head reads from each level.
        ffn_dim: hidden width of the feed-forward blocks.
        dropout: in every layer.
        activation: inside the feed-forward blocks.
    """

    def __init__(
        self,
        *,
        num_layers: int = 6,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        ffn_dim: int = 1024,
        dropout: float = 0.0,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(
                embed_dim=embed_dim,
                num_heads=num_heads,
                num_levels=num_levels,
                num_points=num_points,
                ffn_dim=ffn_dim,
                dropout=dropout,
                activation=activation,
            )
            for _ in range(num_layers)
        )

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        spatial_shapes: SpatialShapes,
        *,
        valid_ratios: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Let the tokens of a pyramid exchange what they know.

        Args:
            tokens: (B, S, C), level after level.
            position: (B or 1, S, C) positional and level embeddings, added to queries.
            spatial_shapes: (H, W) of each level.
            valid_ratios: (B, L, 2) as width and height; None without padding.
            padding_mask: (B, S) bool, True on padding; None without padding.

        Returns:
            (B, S, C).
        """
        per_layer = self.each_layer(
            tokens,
            position,
            spatial_shapes,
            valid_ratios=valid_ratios,
            padding_mask=padding_mask,
        )
        return reduce(_latest, per_layer, tokens)

    def each_layer(
        self,
        tokens: Tensor,
        position: Tensor,
        spatial_shapes: SpatialShapes,
        *,
        valid_ratios: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """The tokens (B, S, C) after each layer; arguments as in `forward`."""
        with torch.autocast(tokens.device.type, enabled=False):
            reference_points = cell_centres(spatial_shapes, valid_ratios, like=tokens)
        for layer in self.layers:
            tokens = layer(tokens, position, reference_points, spatial_shapes, padding_mask)
            yield tokens


def _latest(before: Tensor, after: Tensor) -> Tensor:
    return after
