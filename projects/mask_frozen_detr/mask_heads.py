"""From queries and the features of their regions to mask logits (equation 4, Table 14)."""

import torch.nn.functional as F
from torch import Tensor, nn


class DotProductHead(nn.Module):
    """The logit of a cell is the product of its features with the query.

    Args:
        scaled: divide by the root of the number of channels. The paper speaks of no factor.
    """

    def __init__(self, *, scaled: bool = False) -> None:
        super().__init__()
        self.scaled = scaled

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """(N, d) and (N, P, d) to logits (N, P)."""
        if self.scaled:
            queries = queries / queries.shape[-1] ** 0.5
        return (features @ queries[..., None])[..., 0]


class SegmenterHead(nn.Module):
    """The cosine of projected features and queries (the mask Transformer of Segmenter).

    The paper speaks of projection and normalisation only. Cosines alone would keep probabilities
    between 0.27 and 0.73, so ours are multiplied by a constant.

    Args:
        embed_dim: d.
        scale: what the cosine is multiplied by.
    """

    def __init__(self, *, embed_dim: int, scale: float = 10.0) -> None:
        super().__init__()
        self.feature_projection = nn.Linear(embed_dim, embed_dim, bias=False)
        self.query_projection = nn.Linear(embed_dim, embed_dim, bias=False)
        self.scale = scale

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """(N, d) and (N, P, d) to logits (N, P)."""
        directions = F.normalize(self.query_projection(queries), dim=-1)
        features = F.normalize(self.feature_projection(features), dim=-1)
        return self.scale * (features @ directions[..., None])[..., 0]
