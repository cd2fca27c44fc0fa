"""Deformable Transformer decoder: queries read from a pyramid and refine their boxes."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from queryseg.deformable_detr.attention import DeformableAttention
from queryseg.deformable_detr.box_refinement import box_head, refine_boxes
from queryseg.deformable_detr.pyramid import SpatialShapes
from queryseg.deformable_detr.token_pyramid import TokenPyramid
from queryseg.layers import FeedForwardBlock, SelfAttentionBlock


@dataclass(frozen=True)
class Queries:
    """What a decoder starts from.

    Args:
        query_feats: (B, Q, C) content.
        query_pos: (B, Q, C) position; None for a decoder that derives it from the references.
        references: (B, Q, 4) boxes cx, cy, w, h, or (B, Q, 2) points, in [0, 1] of each image
            before padding; learned ones get their gradient from the first layer.
    """

    query_feats: Tensor
    query_pos: Tensor | None
    references: Tensor


@dataclass(frozen=True)
class Decoded:
    """What the layers of a decoder say, first layer first.

    Args:
        query_feats: of each layer (B, Q, C), for the heads.
        references: of each layer (B, Q, 4 or 2), what it started from.
        boxes: of each layer (B, Q, 4) as cx, cy, w, h in [0, 1] of each image before padding.
    """

    query_feats: list[Tensor]
    references: list[Tensor]
    boxes: list[Tensor]


class DeformableDecoderLayer(nn.Module):
    """Self-attention of the queries, deformable attention to the pyramid, feed-forward block.

    Each is followed by its norm.

    Args:
        embed_dim: C.
        num_heads: attention heads.
        num_levels: L.
        num_points: points each head reads from each level.
        ffn_dim: hidden width of the feed-forward block.
        dropout: on attention weights, on the outputs of the blocks and inside the last.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        ffn_dim: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_attention = SelfAttentionBlock(
            embed_dim=embed_dim, num_heads=num_heads, dropout=dropout
        )
        self.cross_attention = DeformableAttention(
            embed_dim=embed_dim,
            num_heads=num_heads,
            num_levels=num_levels,
            num_points=num_points,
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.ffn = FeedForwardBlock(embed_dim=embed_dim, hidden_dim=ffn_dim, dropout=dropout)

    def forward(
        self,
        query_feats: Tensor,
        query_pos: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        spatial_shapes: SpatialShapes,
        padding_mask: Tensor | None = None,
        attend_mask: Tensor | None = None,
    ) -> Tensor:
        """Update the queries.

        Args:
            query_feats: (B, Q, C).
            query_pos: (B, Q, C), added wherever queries ask.
            reference_points: (B, Q, L, 2 or 4) in [0, 1] of the padded image.
            memory: (B, S, C).
            spatial_shapes: (H, W) of each level.
            padding_mask: (B, S) bool, True on padding.
            attend_mask: bool, broadcastable to (B, M, Q, Q), True where a query may look.

        Returns:
            (B, Q, C).
        """
        query_feats = self.self_attention(query_feats, position=query_pos, attend_mask=attend_mask)
        gathered = self.cross_attention(
            query_feats + query_pos, reference_points, memory, spatial_shapes, padding_mask
        )
        return self.ffn(self.norm(query_feats + self.dropout(gathered)))


class DeformableDecoder(nn.Module):
    """A stack of layers, each with a head that moves the boxes for the next one.

    Args:
        num_layers: how many.
        embed_dim: C.
        num_heads: attention heads.
        num_levels: L.
        num_points: points each head reads from each level.
        ffn_dim: hidden width of the feed-forward blocks.
        dropout: in every layer.
        refine: whether a layer starts from the boxes of the one before; else all from the first.
        look_forward_twice: let the loss of a layer also train the box head before it (DINO,
            section 3.5). Without effect in evaluation.
        share_box_heads: one box head for all layers (DINO) instead of one each.
        size_bias: change of width and height that the first head starts with; -2 where the first
            references are points.
        output_norm: normalise what the heads see; the next layer and its boxes do without (DINO).
        query_position: module that gives query positions (B, Q, C) from references (B, Q, 4) in
            [0, 1] of the padded image, anew for every layer (DINO); None for constant ones.
        reference_eps: references count as this at least, and as one minus this at most, when boxes
            are moved; DINO and everything in detrex take 1e-3.
    """

    def __init__(
        self,
        *,
        num_layers: int = 6,
        embed_dim: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        ffn_dim: int = 1024,
        dropout: float = 0.0,
        refine: bool = True,
        look_forward_twice: bool = False,
        share_box_heads: bool = False,
        size_bias: float = 0.0,
        output_norm: bool = False,
        query_position: nn.Module | None = None,
        reference_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(
                embed_dim=embed_dim,
                num_heads=num_heads,
                num_levels=num_levels,
                num_points=num_points,
                ffn_dim=ffn_dim,
                dropout=dropout,
            )
            for _ in range(num_layers)
        )
        num_heads_of_boxes = 1 if share_box_heads else num_layers
        self.box_heads = nn.ModuleList(
            box_head(embed_dim, 0.0 if refine and index else size_bias)
            for index in range(num_heads_of_boxes)
        )
        self.norm = nn.LayerNorm(embed_dim) if output_norm else None
        self.query_position = query_position
        self.refine = refine
        self.look_forward_twice = look_forward_twice
        self.reference_eps = reference_eps

    def forward(
        self, queries: Queries, memory: TokenPyramid, attend_mask: Tensor | None = None
    ) -> Decoded:
        """Refine the queries.

        Args:
            queries: content, position and references.
            memory: the encoded pyramid.
            attend_mask: bool, broadcastable to (B, M, Q, Q), True where a query may look; all where
                None.
        """
        decoded = Decoded([], [], [])
        query_feats, references = queries.query_feats, queries.references
        trained_references = references
        for index, layer in enumerate(self.layers):
            reference_points = self.on_padded_image(references, memory.valid_ratios)
            query_feats = layer(
                query_feats,
                self._position(queries, reference_points),
                reference_points,
                memory.tokens,
                memory.spatial_shapes,
                memory.padding_mask,
                attend_mask,
            )
            output = query_feats if self.norm is None else self.norm(query_feats)
            decoded.query_feats.append(output)
            decoded.references.append(references)
            decoded.boxes.append(self._boxes(index, output, trained_references))
            if self.refine:
                moved = decoded.boxes[-1]
                if self.norm is not None or trained_references is not references:
                    moved = self._boxes(index, query_feats, references)
                references = moved.detach()
                trained_references = moved if self.look_forward_twice else references
        return decoded

    def on_padded_image(self, references: Tensor, valid_ratios: Tensor) -> Tensor:
        """(B, Q, 2 or 4) in [0, 1] of the image to (B, Q, L, 2 or 4) of the padded one."""
        ratios = valid_ratios.repeat(1, 1, references.shape[-1] // 2)
        return references[:, :, None] * ratios[:, None]

    def _position(self, queries: Queries, reference_points: Tensor) -> Tensor:
        if self.query_position is not None:
            return self.query_position(reference_points[:, :, 0])
        assert queries.query_pos is not None
        return queries.query_pos

    def _boxes(self, index: int, query_feats: Tensor, references: Tensor) -> Tensor:
        deltas = self.box_heads[min(index, len(self.box_heads) - 1)](query_feats)
        with torch.autocast(deltas.device.type, enabled=False):
            dtype = torch.promote_types(deltas.dtype, references.dtype)
            return refine_boxes(deltas.to(dtype), references.to(dtype), self.reference_eps)
