"""The box branch of a stage: query and box features in, next query, class and box change out."""

import math

from torch import Tensor, nn

from queryseg.layers import FeedForwardBlock
from queryseg.projects.queryinst.dynamic_conv import DynamicConv

PRIOR_PROBABILITY = 0.01
"""What every class starts with, so that background does not swamp the first focal losses."""


class BoxHead(nn.Module):
    """Dynamic convolution of the box features, feed-forward block, class and box branches.

    Dynamic instance interactive head of Sparse R-CNN; equation 1, DynConv_box and B.

    Args:
        embed_dim: C.
        num_classes: K.
        resolution: cells on each side of the box features.
        dynamic_dim: D of the dynamic convolution.
        ffn_dim: hidden width of the feed-forward block.
        num_class_layers: layers before the class logits.
        num_box_layers: layers before the box deltas.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_classes: int,
        resolution: int = 7,
        dynamic_dim: int = 64,
        ffn_dim: int = 2048,
        num_class_layers: int = 1,
        num_box_layers: int = 3,
    ) -> None:
        super().__init__()
        self.dynamic_conv = DynamicConv(embed_dim=embed_dim, hidden_dim=dynamic_dim)
        self.projection = nn.Linear(resolution**2 * embed_dim, embed_dim)
        self.projection_norm = nn.LayerNorm(embed_dim)
        self.interaction_norm = nn.LayerNorm(embed_dim)
        self.ffn = FeedForwardBlock(embed_dim=embed_dim, hidden_dim=ffn_dim)
        self.class_layers = _branch(embed_dim, num_class_layers)
        self.class_embed = nn.Linear(embed_dim, num_classes)
        self.box_layers = _branch(embed_dim, num_box_layers)
        self.box_embed = nn.Linear(embed_dim, 4)
        self._initialise()

    def forward(self, box_feats: Tensor, query_feats: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One round of every query with the features of its box.

        Args:
            box_feats: (B * Q, P, C).
            query_feats: (B, Q, C) after self-attention.

        Returns:
            The next query features (B, Q, C), class logits (B, Q, K) without "no object", and box
            deltas (B, Q, 4).
        """
        filtered = self.dynamic_conv(box_feats, query_feats.flatten(0, 1)).flatten(1)
        read = self.projection_norm(self.projection(filtered)).relu()
        query_feats = self.interaction_norm(query_feats + read.view_as(query_feats))
        query_feats = self.ffn(query_feats)
        class_logits = self.class_embed(self.class_layers(query_feats))
        return query_feats, class_logits, self.box_embed(self.box_layers(query_feats))

    def _initialise(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        prior = math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY))
        nn.init.constant_(self.class_embed.bias, prior)
        nn.init.zeros_(self.box_embed.bias)


def _branch(embed_dim: int, num_layers: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_layers):
        layers += [nn.Linear(embed_dim, embed_dim, bias=False), nn.LayerNorm(embed_dim), nn.ReLU()]
    return nn.Sequential(*layers)
