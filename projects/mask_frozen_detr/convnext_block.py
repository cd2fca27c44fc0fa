"""The block of ConvNeXt on tokens of a map."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, and an inverted bottleneck, scaled and added (Liu et al., 2022).

    Args:
        embed_dim: C.
        hidden_dim: width of the bottleneck.
        kernel_size: side of the convolution.
        layer_scale: initial factor on what is added, one a channel.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        hidden_dim: int,
        kernel_size: int = 7,
        layer_scale: float = 1e-6,
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            embed_dim, embed_dim, kernel_size, padding=kernel_size // 2, groups=embed_dim
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.linear1 = nn.Linear(embed_dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, embed_dim)
        self.scale = nn.Parameter(torch.full((embed_dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        mixed = self.depthwise(x.movedim(-1, 1)).movedim(1, -1)
        update = self.linear2(F.gelu(self.linear1(self.norm(mixed))))
        return x + self.scale * update
