"""The shared map that all masks are read from (section 3.2, shared mask features)."""

from torch import Tensor, nn

from queryseg.deformable_detr import DeformableEncoder, TokenPyramid


class MaskEncoder(nn.Module):
    """Deformable layers on the finest level alone, then a few normalised channels.

    Args:
        mask_channels: C_mask (Table 3a).
        embed_dim: C of the encoded pyramid.
        num_layers: deformable encoder layers; with none, the projection alone (Table 3b).
        num_heads: one in the release; the paper names no other number than 8 for its attention.
        num_points: points each head reads.
        ffn_dim: hidden width of the feed-forward block.
        dropout: in the layers.
    """

    def __init__(
        self,
        *,
        mask_channels: int = 8,
        embed_dim: int = 256,
        num_layers: int = 1,
        num_heads: int = 1,
        num_points: int = 4,
        ffn_dim: int = 1024,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = DeformableEncoder(
            num_layers=num_layers,
            embed_dim=embed_dim,
            num_heads=num_heads,
            num_levels=1,
            num_points=num_points,
            ffn_dim=ffn_dim,
            dropout=dropout,
        )
        self.projection = nn.Linear(embed_dim, mask_channels)
        self.norm = nn.LayerNorm(mask_channels)
        nn.init.xavier_uniform_(self.projection.weight)

    def forward(self, memory: TokenPyramid) -> Tensor:
        """The encoded pyramid to (B, H, W, C_mask) at its finest level."""
        finest = memory.level(0)
        tokens = self.encoder(
            finest.tokens,
            finest.position,
            finest.spatial_shapes,
            valid_ratios=finest.valid_ratios,
            padding_mask=finest.padding_mask,
        )
        return self.norm(self.projection(tokens)).unflatten(1, finest.spatial_shapes[0])
