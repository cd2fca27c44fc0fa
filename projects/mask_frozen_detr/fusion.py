"""The map that masks are read from: backbone details and encoder features in one (equation 5)."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Neck = Literal["conv", "raw", "none"]
GROUPS = 32


class FeatureFusion(nn.Module):
    """Adds the first map of the backbone to the upsampled finest map of the encoder.

    The neck is a pointwise convolution with group norm (equation 14). A detector whose encoder
    already works at a quarter of the image's side (five scales) takes no backbone map: so the
    parameters of the paper's Table 16 have it.

    Args:
        neck: "conv" (eq. 14), "raw" for the backbone map as it is, "none" to leave it out.
        in_channels: of the backbone map.
        embed_dim: C of the encoder.

    Raises:
        ValueError: a raw backbone map of another width than the encoder's, or an unknown neck.
    """

    def __init__(self, *, neck: Neck, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        if neck not in ("conv", "raw", "none"):
            raise ValueError(f"neck is {neck!r}; expected 'conv', 'raw' or 'none'")
        if neck == "raw" and in_channels != embed_dim:
            raise ValueError(
                f"the backbone's first map has {in_channels} channels and the encoder {embed_dim}: "
                "they can only be added with neck=conv"
            )
        self.uses_stage1 = neck != "none"
        self.neck = _neck(in_channels, embed_dim) if neck == "conv" else nn.Identity()

    def forward(self, stage1: Tensor, encoded: Tensor) -> Tensor:
        """Fuse.

        Args:
            stage1: (B, C1, h, w) of the backbone.
            encoded: (B, C, H, W) finest map of the encoder.

        Returns:
            (B, C, h, w).
        """
        if encoded.shape[-2:] != stage1.shape[-2:]:
            encoded = F.interpolate(
                encoded, stage1.shape[-2:], mode="bilinear", align_corners=False
            )
        return self.neck(stage1) + encoded if self.uses_stage1 else encoded


def _neck(in_channels: int, embed_dim: int) -> nn.Module:
    norm = nn.GroupNorm(GROUPS, embed_dim)
    return nn.Sequential(nn.Conv2d(in_channels, embed_dim, 1), norm)
