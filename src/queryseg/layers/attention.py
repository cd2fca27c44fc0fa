"""Multi-head attention in the parameter layout of `nn.MultiheadAttention`, batch first."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention of several heads, without materialising the attention weights.

    Parameters carry the names and shapes of `nn.MultiheadAttention` with equal query, key and value
    widths (`in_proj_weight` (3C, C), `in_proj_bias` (3C,), `out_proj.weight`, `out_proj.bias`), so
    official checkpoints load. Projections are Xavier-uniform (`in_proj_weight` as one matrix),
    biases zero.

    Args:
        embed_dim: C, the width of queries, keys and values.
        num_heads: M, the number of heads; has to divide C.
        dropout: probability of dropping an attention weight in training.

    Raises:
        ValueError: `embed_dim` is not a multiple of `num_heads`.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attend_mask: Tensor | None = None
    ) -> Tensor:
        """Gather from `value` what each query attends to.

        Args:
            query: (B, Q, C).
            key: (B, S, C); the same object as `query` in self-attention saves one projection.
            value: (B, S, C).
            attend_mask: bool, broadcastable to (B, M, Q, S); True where a query may look. A row
                without any True has no defined output: the caller opens such rows.

        Returns:
            (B, Q, C).
        """
        queries, keys, values = (self._split_heads(x) for x in self._project(query, key, value))
        gathered = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=attend_mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(gathered.transpose(1, 2).flatten(2))

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = query.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        values = F.linear(value, weight[2 * width :], bias[2 * width :])
        if query is key:
            queries, keys = F.linear(query, weight[: 2 * width], bias[: 2 * width]).chunk(2, dim=-1)
            return queries, keys, values
        queries = F.linear(query, weight[:width], bias[:width])
        keys = F.linear(key, weight[width : 2 * width], bias[width : 2 * width])
        return queries, keys, values

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
