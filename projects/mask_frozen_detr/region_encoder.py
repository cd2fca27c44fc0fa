"""Encoders of the region features inside each box (section 3.3)."""

import torch
from torch import Tensor, nn

from queryseg.deformable_detr import DeformableEncoderLayer, cell_centres
from queryseg.projects.mask_frozen_detr.convnext_block import ConvNeXtBlock
from queryseg.projects.mask_frozen_detr.swin_blocks import SwinBlocks


class DeformableRegionEncoder(nn.Module):
    """Deformable encoder layers on the cells of a region, a pyramid of one level.

    Args:
        num_layers: how many.
        embed_dim: d.
        size: cells along each side of a region.
        num_heads: attention heads.
        num_points: points each head reads.
        ffn_ratio: hidden width of the feed-forward blocks, in d.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        embed_dim: int,
        size: int,
        num_heads: int = 8,
        num_points: int = 4,
        ffn_ratio: int = 4,
    ) -> None:
        super().__init__()
        self.size = size
        self.position = nn.Parameter(torch.empty(size * size, embed_dim))
        nn.init.normal_(self.position, std=0.02)
        self.num_layers = num_layers
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(
                embed_dim=embed_dim,
                num_heads=num_heads,
                num_levels=1,
                num_points=num_points,
                ffn_dim=ffn_ratio * embed_dim,
                activation="gelu",
            )
            for _ in range(num_layers)
        )

    def step(self, index: int, tokens: Tensor) -> Tensor:
        """Tokens (N, h * w, d) after layer `index`."""
        shapes = [(self.size, self.size)]
        with torch.autocast(tokens.device.type, enabled=False):
            centres = cell_centres(shapes, like=tokens)
        return self.layers[index](tokens, self.position, centres, shapes)


class SwinRegionEncoder(nn.Module):
    """Swin blocks on the cells of a region, every second one with shifted windows.

    Args:
        num_layers: how many.
        embed_dim: d.
        size: cells along each side of a region.
        num_heads: attention heads.
        window: cells along each side of a window.
        ffn_ratio: hidden width of the feed-forward parts, in d.
    """

    position = None

    def __init__(
        self,
        *,
        num_layers: int,
        embed_dim: int,
        size: int,
        num_heads: int = 8,
        window: int = 8,
        ffn_ratio: int = 4,
    ) -> None:
        super().__init__()
        self.size = size
        self.blocks = SwinBlocks(
            num_layers=num_layers,
            embed_dim=embed_dim,
            num_heads=num_heads,
            window=window,
            ffn_ratio=ffn_ratio,
        )
        self.num_layers = num_layers

    def step(self, index: int, tokens: Tensor) -> Tensor:
        """Tokens (N, h * w, d) after layer `index`."""
        return self.blocks.step(index, tokens.unflatten(1, (self.size, self.size))).flatten(1, 2)


class ConvNeXtRegionEncoder(nn.Module):
    """ConvNeXt blocks on the cells of a region.

    Args:
        num_layers: how many.
        embed_dim: d.
        size: cells along each side of a region.
        ffn_ratio: hidden width of the bottlenecks, in d.
    """

    position = None

    def __init__(self, *, num_layers: int, embed_dim: int, size: int, ffn_ratio: int = 4) -> None:
        super().__init__()
        self.size = size
        self.num_layers = num_layers
        self.layers = nn.ModuleList(
            ConvNeXtBlock(embed_dim=embed_dim, hidden_dim=ffn_ratio * embed_dim)
            for _ in range(num_layers)
        )

    def step(self, index: int, tokens: Tensor) -> Tensor:
        """Tokens (N, h * w, d) after layer `index`."""
        return self.layers[index](tokens.unflatten(1, (self.size, self.size))).flatten(1, 2)
