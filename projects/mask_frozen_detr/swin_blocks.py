"""Swin blocks in a row, on maps of one size."""

from torch import Tensor, nn

from queryseg.backbones.swin import SwinBlock
from queryseg.backbones.window_attention import blocked_by_shift


class SwinBlocks(nn.Module):
    """Attention in windows, which are shifted by half their side in every second block.

    Args:
        num_layers: how many blocks.
        embed_dim: C.
        num_heads: attention heads.
        window: cells along each side of a window.
        ffn_ratio: hidden width of the feed-forward parts, in C.
    """

    def __init__(
        self, *, num_layers: int, embed_dim: int, num_heads: int, window: int, ffn_ratio: float
    ) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(
            SwinBlock(
                embed_dim=embed_dim,
                num_heads=num_heads,
                window_size=window,
                shift=window // 2 if index % 2 else 0,
                mlp_ratio=ffn_ratio,
            )
            for index in range(num_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        for index in range(len(self.blocks)):
            x = self.step(index, x)
        return x

    def step(self, index: int, x: Tensor) -> Tensor:
        """(B, H, W, C) after block `index`."""
        block = self.blocks[index]
        if not len(x):
            # Attention among no cells leaves parameters without a gradient, which DDP waits for.
            return x + 0.0 * sum(parameter.sum() for parameter in block.parameters())
        if not block.shift:
            return block(x)
        height, width = (-(-side // self.window) * self.window for side in x.shape[1:3])
        blocked = blocked_by_shift(
            height, width, window_size=self.window, shift=block.shift, device=x.device
        )
        return block(x, blocked)
