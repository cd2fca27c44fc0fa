"""Encoders of the detector's feature maps (section 3.2)."""

from torch import Tensor, nn

from queryseg.deformable_detr import DeformableEncoder, split_pyramid
from queryseg.deformable_detr.pyramid import SpatialShapes
from queryseg.projects.mask_frozen_detr.convnext_block import ConvNeXtBlock
from queryseg.projects.mask_frozen_detr.swin_blocks import SwinBlocks


class ImageEncoder(nn.Module):
    """From the detector's tokens to a map of its finest level. This one leaves it as it is."""

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        spatial_shapes: SpatialShapes,
        *,
        valid_ratios: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Refine the features for masks.

        Args:
            tokens: (B, S, C) of all levels.
            position: (B, S, C) the detector's positional and level embeddings.
            spatial_shapes: (H, W) of each level, finest first.
            valid_ratios: (B, L, 2); None without padding.
            padding_mask: (B, S) bool, True on padding; None without padding.

        Returns:
            (B, C, H, W) of the finest level.
        """
        return split_pyramid(tokens, spatial_shapes)[0]


class DeformableImageEncoder(ImageEncoder):
    """Multi-scale deformable encoder layers over all levels (equation 6).

    The positions are the detector's own.

    Args:
        num_layers: how many.
        embed_dim: C.
        num_levels: L of the detector's encoder.
        num_heads: attention heads.
        num_points: points each head reads from each level.
        ffn_dim: hidden width of the feed-forward blocks.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        embed_dim: int,
        num_levels: int,
        num_heads: int = 8,
        num_points: int = 4,
        ffn_dim: int = 1024,
    ) -> None:
        super().__init__()
        self.encoder = DeformableEncoder(
            num_layers=num_layers,
            embed_dim=embed_dim,
            num_heads=num_heads,
            num_levels=num_levels,
            num_points=num_points,
            ffn_dim=ffn_dim,
            activation="gelu",
        )

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        spatial_shapes: SpatialShapes,
        *,
        valid_ratios: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """As `ImageEncoder.forward`."""
        encoded = self.encoder(
            tokens,
            position,
            spatial_shapes,
            valid_ratios=valid_ratios,
            padding_mask=padding_mask,
        )
        return split_pyramid(encoded, spatial_shapes)[0]


class FinestLevelEncoder(ImageEncoder):
    """Blocks on the finest level alone (equations 7 and 8), padding set to zero before them.

    Args:
        blocks: takes and gives (B, H, W, C).
    """

    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        spatial_shapes: SpatialShapes,
        *,
        valid_ratios: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """As `ImageEncoder.forward`."""
        height, width = spatial_shapes[0]
        finest = tokens[:, : height * width]
        if padding_mask is not None:
            finest = finest.masked_fill(padding_mask[:, : height * width, None], 0.0)
        return self.blocks(finest.unflatten(1, (height, width))).movedim(-1, 1)


def swin_image_encoder(
    *, num_layers: int, embed_dim: int, num_heads: int = 8, window: int = 14, ffn_dim: int = 1024
) -> ImageEncoder:
    """Swin blocks on the finest level; the paper's FLOPs and parameters fit windows of 14."""
    return FinestLevelEncoder(
        SwinBlocks(
            num_layers=num_layers,
            embed_dim=embed_dim,
            num_heads=num_heads,
            window=window,
            ffn_ratio=ffn_dim / embed_dim,
        )
    )


def convnext_image_encoder(*, num_layers: int, embed_dim: int, ffn_dim: int = 1024) -> ImageEncoder:
    """ConvNeXt blocks on the finest level."""
    blocks = (ConvNeXtBlock(embed_dim=embed_dim, hidden_dim=ffn_dim) for _ in range(num_layers))
    return FinestLevelEncoder(nn.Sequential(*blocks))
