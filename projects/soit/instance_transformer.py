"""The instance-aware transformer: a small attention whose weights each instance predicts."""

import torch
from torch import Tensor, nn

from queryseg.ops.instance_deform_attn import instance_deform_attn, num_dynamic_weights
from queryseg.projects.soit.position_codes import POSITION_KINDS, PositionKind, position_codes
from queryseg.projects.soit.without_relu import without_relu


class InstanceTransformer(nn.Module):
    """Turns the shared mask map into the mask of each instance (section 3.2).

    It has no weights of its own. One vector per instance holds, one after the other, the weights
    and biases of the sampling offsets, of the attention weights and of the output.

    Args:
        mask_channels: C of the map, a multiple of 4 and of `num_heads` (Table 3a).
        num_heads: M (Table 2).
        num_points: K, points each head reads.
        position: what is added to the map where it asks (Table 4).
        relu: ReLU before the output layer, as in the release; equation 2 has none.

    Raises:
        ValueError: sizes that do not fit together, or an unknown position.
    """

    def __init__(
        self,
        *,
        mask_channels: int = 8,
        num_heads: int = 4,
        num_points: int = 4,
        position: PositionKind = "relative",
        relu: bool = True,
    ) -> None:
        super().__init__()
        if mask_channels % 4 or mask_channels % num_heads:
            raise ValueError(
                f"mask_channels is {mask_channels}; expected a multiple of 4 and of the "
                f"{num_heads} heads"
            )
        if position not in POSITION_KINDS:
            raise ValueError(f"position is {position!r}; expected one of {POSITION_KINDS}")
        self.mask_channels = mask_channels
        self.num_heads = num_heads
        self.num_points = num_points
        self.position: PositionKind = position
        self.relu = relu

    @property
    def num_weights(self) -> int:
        """Length of an instance's vector."""
        return num_dynamic_weights(self.mask_channels, self.num_heads, self.num_points)

    def forward(
        self,
        mask_feats: Tensor,
        dynamic_weights: Tensor,
        centres: Tensor,
        image_idx: Tensor,
        valid_sizes: Tensor,
    ) -> Tensor:
        """Predict masks, in at least float32.

        Args:
            mask_feats: (B, H, W, C).
            dynamic_weights: (N, D).
            centres: (N, 2) box centres as x, y in [0, 1] of the image before padding; without
                gradient.
            image_idx: (N,) int64 image of each instance.
            valid_sizes: (B, 2) int64, rows and columns of each map that are no padding.

        Returns:
            (N, H, W) mask logits.
        """
        with torch.autocast(mask_feats.device.type, enabled=False):
            dtype = torch.promote_types(mask_feats.dtype, torch.float32)
            codes = position_codes(
                centres.to(dtype),
                valid_sizes[image_idx],
                (mask_feats.shape[1], mask_feats.shape[2]),
                channels=self.mask_channels,
                kind=self.position,
            )
            inputs = (mask_feats, dynamic_weights.to(dtype), *codes)
            return instance_deform_attn(
                *(inputs if self.relu else without_relu(*inputs, self.num_heads, self.num_points)),
                heads=self.num_heads,
                points=self.num_points,
                image_index=image_idx,
                valid_sizes=valid_sizes,
            )
