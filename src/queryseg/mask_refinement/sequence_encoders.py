"""How the tokens of a box learn from each other: the transformer, and what the paper compares.

All take padded sequences (n, S, C) with reference tokens first, and give the tokens behind the
first `skip` ones.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from queryseg.layers import MLP, FeedForwardBlock, MultiheadAttention


class SequenceEncoder(Protocol):
    """What the refiner expects of a sequence encoder."""

    def __call__(
        self, tokens: Tensor, position: Tensor | None, attend_mask: Tensor | None, skip: int
    ) -> Tensor:
        """Encode (n, S, C) tokens to (n, S - skip, C).

        Args:
            tokens: (n, S, C).
            position: (n, S, C), added to queries and keys, or None.
            attend_mask: bool, broadcastable to (n, 1, S, S), True where a token may look.
            skip: leading tokens whose output nobody needs.
        """


class RefinerLayer(nn.Module):
    """Self-attention and feed-forward block, norms behind them.

    Args:
        embed_dim: C.
        num_heads: attention heads.
        ffn_dim: width of the feed-forward block.
        dropout: on attention weights, behind the activation and on both branches.
    """

    def __init__(
        self, *, embed_dim: int, num_heads: int, ffn_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention = MultiheadAttention(
            embed_dim=embed_dim, num_heads=num_heads, dropout=dropout
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.ffn = FeedForwardBlock(embed_dim=embed_dim, hidden_dim=ffn_dim, dropout=dropout)

    def forward(
        self, tokens: Tensor, position: Tensor | None, attend_mask: Tensor | None, skip: int = 0
    ) -> Tensor:
        """(n, S, C) to (n, S - skip, C); see `SequenceEncoder`."""
        keys = tokens if position is None else tokens + position
        queries = keys[:, skip:] if skip else keys
        gathered = self.attention(queries, keys, tokens, attend_mask)
        return self.ffn(self.norm(tokens[:, skip:] + self.dropout(gathered)))


class TransformerSequence(nn.Module):
    """Layers of self-attention over all tokens of a box (section 3.3).

    Args:
        embed_dim: C.
        num_heads: attention heads.
        num_layers: D.
        ffn_dim: width of the feed-forward blocks.
        dropout: of the layers.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_heads: int = 4,
        num_layers: int = 3,
        ffn_dim: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            RefinerLayer(embed_dim=embed_dim, num_heads=num_heads, ffn_dim=ffn_dim, dropout=dropout)
            for _ in range(num_layers)
        )

    def forward(
        self, tokens: Tensor, position: Tensor | None, attend_mask: Tensor | None, skip: int
    ) -> Tensor:
        """See `SequenceEncoder`."""
        for layer in self.layers[:-1]:
            tokens = layer(tokens, position, attend_mask)
        if not len(self.layers):
            return tokens[:, skip:]
        if attend_mask is not None and attend_mask.shape[-2] > 1:
            attend_mask = attend_mask[..., skip:, :]
        return self.layers[-1](tokens, position, attend_mask, skip)


class NonLocalSequence(nn.Module):
    """Non-local blocks: dot-product attention of one head at half the width (Table 7).

    Args:
        embed_dim: C.
        num_layers: blocks.
    """

    def __init__(self, *, embed_dim: int = 256, num_layers: int = 3) -> None:
        super().__init__()
        half = embed_dim // 2
        self.projections = nn.ModuleList(nn.Linear(embed_dim, 3 * half) for _ in range(num_layers))
        self.outputs = nn.ModuleList(nn.Linear(half, embed_dim) for _ in range(num_layers))

    def forward(
        self, tokens: Tensor, position: Tensor | None, attend_mask: Tensor | None, skip: int
    ) -> Tensor:
        """See `SequenceEncoder`; positions are added to the tokens."""
        if position is not None:
            tokens = tokens + position
        mask = None if attend_mask is None else attend_mask.squeeze(1)
        for project, output in zip(self.projections, self.outputs):
            query, key, value = project(tokens).chunk(3, -1)
            tokens = tokens + output(F.scaled_dot_product_attention(query, key, value, mask))
        return tokens[:, skip:]


class MLPSequence(nn.Module):
    """Every token for itself, through three hidden layers, as in PointRend (Table 6).

    Args:
        embed_dim: C.
        num_layers: hidden layers.
    """

    def __init__(self, *, embed_dim: int = 256, num_layers: int = 3) -> None:
        super().__init__()
        self.mlp = MLP(
            input_dim=embed_dim, hidden_dim=embed_dim, output_dim=embed_dim, num_layers=num_layers
        )

    def forward(
        self, tokens: Tensor, position: Tensor | None, attend_mask: Tensor | None, skip: int
    ) -> Tensor:
        """See `SequenceEncoder`; positions are added to the tokens."""
        if position is not None:
            tokens = tokens + position
        return self.mlp(tokens[:, skip:]).relu()


class ConvSequence(nn.Module):
    """3x3 convolutions over one full grid of cells (Table 6).

    Args:
        embed_dim: C.
        num_layers: convolutions.
    """

    def __init__(self, *, embed_dim: int = 256, num_layers: int = 4) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(embed_dim, embed_dim, 3, padding=1) for _ in range(num_layers)
        )

    def forward(
        self, tokens: Tensor, position: Tensor | None, attend_mask: Tensor | None, skip: int
    ) -> Tensor:
        """See `SequenceEncoder`; positions are added to the tokens.

        Raises:
            ValueError: the tokens behind the references are no square grid.
        """
        if position is not None:
            tokens = tokens + position
        cells = tokens[:, skip:].transpose(1, 2)
        size = round(cells.shape[2] ** 0.5)
        if size * size != cells.shape[2]:
            raise ValueError(
                f"convolutions need the whole of one grid, got {cells.shape[2]} tokens: set "
                "region to FullRegion and refine one level"
            )
        maps = cells.unflatten(2, (size, size))
        for conv in self.convs:
            maps = F.relu(conv(maps))
        return maps.flatten(2).transpose(1, 2)


def same_level_mask(level: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Who may look at whom where each level is refined for itself (Table 8).

    Args:
        level: (n, S) int64, 0 for reference tokens, which all may look at.
        padding_mask: (n, S) bool, True at padding, or None.

    Returns:
        (n, 1, S, S) bool.
    """
    keys = level.unsqueeze(1)
    mask = (keys == level.unsqueeze(2)) | (keys == 0)
    if padding_mask is not None:
        # A padded row may look at itself: a row that sees nothing has no defined output.
        own = torch.eye(level.shape[1], dtype=torch.bool, device=level.device)
        mask = (mask & ~padding_mask.unsqueeze(1)) | own
    return mask.unsqueeze(1)
