"""Residual attention and feed-forward blocks with their layer norm, after or before the block."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from queryseg.layers.attention import MultiheadAttention

Activation = Literal["relu", "gelu"]


def with_position(x: Tensor, position: Tensor | None) -> Tensor:
    """`x` plus its positional embedding, where there is one."""
    return x if position is None else x + position


class CrossAttentionBlock(nn.Module):
    """One stream reads from another: `x = norm(x + attention(x, memory))`.

    Positions are added to queries and keys, never to values. With `pre_norm` the norm is applied to
    `x` before the attention instead, and the memory is taken as it is.

    Args:
        embed_dim: C of both streams.
        num_heads: attention heads.
        dropout: on attention weights and on the attention's output.
        pre_norm: normalise the input instead of the sum.
    """

    def __init__(
        self, *, embed_dim: int, num_heads: int, dropout: float = 0.0, pre_norm: bool = False
    ) -> None:
        super().__init__()
        self.attention = MultiheadAttention(
            embed_dim=embed_dim, num_heads=num_heads, dropout=dropout
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        *,
        position: Tensor | None = None,
        memory_position: Tensor | None = None,
        attend_mask: Tensor | None = None,
    ) -> Tensor:
        """Update `x`.

        Args:
            x: (B, Q, C).
            memory: (B, S, C).
            position: broadcastable to `x`.
            memory_position: broadcastable to `memory`.
            attend_mask: bool, broadcastable to (B, M, Q, S), True where a query may look.

        Returns:
            (B, Q, C).
        """
        query = self.norm(x) if self.pre_norm else x
        gathered = self.attention(
            with_position(query, position),
            with_position(memory, memory_position),
            memory,
            attend_mask,
        )
        x = x + self.dropout(gathered)
        return x if self.pre_norm else self.norm(x)


class SelfAttentionBlock(nn.Module):
    """A stream reads from itself: `x = norm(x + attention(x, x))`.

    Args:
        embed_dim: C.
        num_heads: attention heads.
        dropout: on attention weights and on the attention's output.
        pre_norm: normalise the input instead of the sum.
    """

    def __init__(
        self, *, embed_dim: int, num_heads: int, dropout: float = 0.0, pre_norm: bool = False
    ) -> None:
        super().__init__()
        self.attention = MultiheadAttention(
            embed_dim=embed_dim, num_heads=num_heads, dropout=dropout
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(
        self, x: Tensor, *, position: Tensor | None = None, attend_mask: Tensor | None = None
    ) -> Tensor:
        """Update `x`.

        Args:
            x: (B, Q, C).
            position: broadcastable to `x`; added to queries and keys.
            attend_mask: bool, broadcastable to (B, M, Q, Q), True where a query may look.

        Returns:
            (B, Q, C).
        """
        value = self.norm(x) if self.pre_norm else x
        query = with_position(value, position)
        x = x + self.dropout(self.attention(query, query, value, attend_mask))
        return x if self.pre_norm else self.norm(x)


class FeedForwardBlock(nn.Module):
    """Two linear layers on each token: `x = norm(x + W2 relu(W1 x))`.

    Args:
        embed_dim: C.
        hidden_dim: width between the two layers.
        dropout: after the activation and on the output.
        pre_norm: normalise the input instead of the sum.
        activation: between the two layers.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        hidden_dim: int,
        dropout: float = 0.0,
        pre_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.activation = getattr(F, activation)
        self.linear1 = nn.Linear(embed_dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Update `x`, (..., C) to (..., C)."""
        hidden = self.activation(self.linear1(self.norm(x) if self.pre_norm else x))
        x = x + self.dropout(self.linear2(self.dropout(hidden)))
        return x if self.pre_norm else self.norm(x)
