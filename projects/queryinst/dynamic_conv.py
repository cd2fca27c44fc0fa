"""The module around `queryseg.ops.dynamic_conv`: convolutions whose weights a query writes."""

from torch import Tensor, nn

from queryseg.ops import dynamic_conv


class DynamicConv(nn.Module):
    """Two 1x1 convolutions over the features of a box, with weights out of its query (Figure 3).

    The parameters of a query are a (C, D) matrix followed by a (D, C) one. Queries share the layer
    norms behind the two products.

    Args:
        embed_dim: C of features and queries.
        hidden_dim: D between the two convolutions.
    """

    def __init__(self, *, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.dynamic_layer = nn.Linear(embed_dim, 2 * embed_dim * hidden_dim)
        self.norm_in = nn.LayerNorm(hidden_dim)
        self.norm_out = nn.LayerNorm(embed_dim)

    def forward(self, box_feats: Tensor, query_feats: Tensor) -> Tensor:
        """Filter the features of each box with its query.

        Args:
            box_feats: (N, P, C), one row a position.
            query_feats: (N, C).

        Returns:
            (N, P, C).
        """
        return dynamic_conv(
            box_feats,
            self.dynamic_layer(query_feats),
            self.norm_in.weight,
            self.norm_in.bias,
            self.norm_out.weight,
            self.norm_out.bias,
            eps=self.norm_in.eps,
        )
