"""Multi-scale deformable attention as pixel decoder, as in Mask2Former."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from queryseg.deformable_detr import DeformableEncoder, flatten_pyramid, split_pyramid
from queryseg.projects.fastinst.positions import SinePositions


class DeformablePixelDecoder(nn.Module):
    """A deformable encoder over all levels; its outputs are the pyramid (Table 5).

    No FPN follows: the encoder works at the three strides that the method needs. Six layers, four
    points and a hidden width of 1,024 fit the FLOPs of the paper; it names none of them.

    Args:
        in_channels: backbone feature name -> channels, finest first.
        embed_dim: C.
        num_layers: encoder layers.
        num_heads: attention heads.
        num_points: points each head reads from each level.
        ffn_dim: hidden width of the feed-forward blocks.
    """

    def __init__(
        self,
        *,
        in_channels: Mapping[str, int],
        embed_dim: int,
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        ffn_dim: int = 1024,
    ) -> None:
        super().__init__()
        self.in_features = tuple(in_channels)
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, embed_dim, 1), nn.GroupNorm(32, embed_dim))
            for width in in_channels.values()
        )
        self.positions = SinePositions(embed_dim=embed_dim)
        self.level_embed = nn.Parameter(torch.randn(len(in_channels), embed_dim))
        self.encoder = DeformableEncoder(
            num_layers=num_layers,
            embed_dim=embed_dim,
            num_heads=num_heads,
            num_levels=len(in_channels),
            num_points=num_points,
            ffn_dim=ffn_dim,
        )
        for projection in self.projections:
            nn.init.xavier_uniform_(projection[0].weight)
            nn.init.zeros_(projection[0].bias)

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Backbone maps to [E3, E4, E5], each (B, C, h, w), finest first."""
        maps = [
            projection(features[name])
            for projection, name in zip(self.projections, self.in_features)
        ]
        tokens, spatial_shapes = flatten_pyramid(maps)
        levels = [
            self.positions(feature) + embed[:, None, None]
            for feature, embed in zip(maps, self.level_embed)
        ]
        position, _ = flatten_pyramid(levels)
        return split_pyramid(self.encoder(tokens, position, spatial_shapes), spatial_shapes)
