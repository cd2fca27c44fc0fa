"""Pyramid pooling on the coarsest map: context of the whole image for PPM-FPN."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from queryseg.projects.fastinst.fpn import projection, upsample


class PyramidPooling(nn.Module):
    """Average the projected map over grids of several sizes and mix the averages back in.

    Args:
        in_channels: width of the backbone map.
        embed_dim: C.
        grid_sizes: side lengths of the grids; each contributes C / len(grid_sizes) channels.
    """

    def __init__(
        self, *, in_channels: int, embed_dim: int, grid_sizes: Sequence[int] = (1, 2, 3, 6)
    ) -> None:
        super().__init__()
        branch_dim = embed_dim // len(grid_sizes)
        self.projection = projection(in_channels, embed_dim)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Conv2d(embed_dim, branch_dim, 1))
            for size in grid_sizes
        )
        self.mix = nn.Conv2d(embed_dim + branch_dim * len(grid_sizes), embed_dim, 1)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, C, h, w)."""
        x = self.projection(feature)
        pooled = [upsample(branch(x).relu(), x.shape[-2:]) for branch in self.branches]
        return self.mix(torch.cat([*pooled, x], dim=1)).relu()
