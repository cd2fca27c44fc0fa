"""Multi-scale deformable attention as a module (Deformable DETR, section 4.1)."""

import math

import torch
from torch import Tensor, nn

from queryseg.deformable_detr.pyramid import SpatialShapes
from queryseg.ops import ms_deform_attn_fused


class DeformableAttention(nn.Module):
    """Each query reads a few points of every level, around its reference point.

    The query alone says where (`sampling_offsets`) and how much (`attention_weights`). Parameters
    carry the names of the official implementations. Heads start looking in different directions,
    the p-th point p cells away.

    Args:
        embed_dim: C.
        num_heads: M.
        num_levels: L.
        num_points: P, points each head reads from each level.

    Raises:
        ValueError: `embed_dim` is not a multiple of `num_heads`.
    """

    def __init__(
        self, *, embed_dim: int, num_heads: int = 8, num_levels: int = 4, num_points: int = 4
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self._init_weights()

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        value: Tensor,
        spatial_shapes: SpatialShapes,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Gather from the pyramid.

        Args:
            query: (B, Q, C), positions added.
            reference_points: (B or 1, Q, L or 1, 2) as x, y, or (..., 4) as boxes cx, cy, w, h, in
                [0, 1] of the padded image. Offsets count cells of the level around a point, and
                P-ths of half the box around the centre of a box.
            value: (B, S, C) tokens of the pyramid.
            spatial_shapes: (H, W) of each level.
            padding_mask: (B, S) bool, True on padding, whose values count as zero.

        Returns:
            (B, Q, C).
        """
        values = self.value_proj(value)
        if padding_mask is not None:
            values = values.masked_fill(padding_mask[..., None], 0.0)
        values = values.unflatten(-1, (self.num_heads, -1))
        points = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*points, 2))
        logits = self.attention_weights(query).unflatten(-1, points)
        gathered = ms_deform_attn_fused(values, spatial_shapes, reference_points, offsets, logits)
        return self.output_proj(gathered)

    def _init_weights(self) -> None:
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1.0)
        bias = directions[:, None, None] * steps[:, None]
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.expand(-1, self.num_levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
