"""A Transformer encoder on the coarsest map, the context of MaskFormer's pixel decoder."""

from torch import Tensor, nn

from queryseg.layers import FeedForwardBlock, SelfAttentionBlock
from queryseg.projects.fastinst.positions import SinePositions


class EncoderTop(nn.Module):
    """Project the coarsest map and let all its pixels attend to each other (Table 5).

    Six layers with a hidden width of 1,024 fit the FLOPs of the paper; it names neither.

    Args:
        in_channels: width of the backbone map.
        embed_dim: C.
        num_layers: encoder layers.
        num_heads: attention heads.
        ffn_dim: hidden width of the feed-forward blocks.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        embed_dim: int,
        num_layers: int = 6,
        num_heads: int = 8,
        ffn_dim: int = 1024,
    ) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, embed_dim, 1)
        self.positions = SinePositions(embed_dim=embed_dim)
        self.attention = nn.ModuleList(
            SelfAttentionBlock(embed_dim=embed_dim, num_heads=num_heads) for _ in range(num_layers)
        )
        self.ffn = nn.ModuleList(
            FeedForwardBlock(embed_dim=embed_dim, hidden_dim=ffn_dim) for _ in range(num_layers)
        )
        nn.init.kaiming_uniform_(self.projection.weight, a=1)
        nn.init.zeros_(self.projection.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, C, h, w)."""
        x = self.projection(feature)
        position = self.positions(x).flatten(2).mT
        tokens = x.flatten(2).mT
        for attention, ffn in zip(self.attention, self.ffn):
            tokens = ffn(attention(tokens, position=position))
        return tokens.mT.unflatten(2, x.shape[-2:])
