"""One decoder layer: pixels read from queries, queries read from pixels."""

from typing import Literal

from torch import Tensor, nn

from queryseg.layers import CrossAttentionBlock, FeedForwardBlock, SelfAttentionBlock

Update = Literal["pixel_then_query", "query_then_pixel", "pixel_only", "query_only"]
UPDATES: tuple[str, ...] = ("pixel_then_query", "query_then_pixel", "pixel_only", "query_only")


class PixelUpdate(nn.Module):
    """Pixels gather from the queries, then pass a feed-forward block (section 3.4).

    Args:
        embed_dim: C.
        num_heads: attention heads.
        ffn_dim: hidden width of the feed-forward block.
        pre_norm: normalise before instead of after each block.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, ffn_dim: int, pre_norm: bool) -> None:
        super().__init__()
        self.cross_attention = CrossAttentionBlock(
            embed_dim=embed_dim, num_heads=num_heads, pre_norm=pre_norm
        )
        self.ffn = FeedForwardBlock(embed_dim=embed_dim, hidden_dim=ffn_dim, pre_norm=pre_norm)

    def forward(
        self, pixel_feats: Tensor, query_feats: Tensor, pixel_pos: Tensor, query_pos: Tensor
    ) -> Tensor:
        """(B, S, C) pixels to (B, S, C)."""
        pixel_feats = self.cross_attention(
            pixel_feats, query_feats, position=pixel_pos, memory_position=query_pos
        )
        return self.ffn(pixel_feats)


class QueryUpdate(nn.Module):
    """Queries gather from the pixels of their mask, then from each other (section 3.4).

    Args:
        embed_dim: C.
        num_heads: attention heads.
        ffn_dim: hidden width of the feed-forward block.
        pre_norm: normalise before instead of after each block.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, ffn_dim: int, pre_norm: bool) -> None:
        super().__init__()
        self.cross_attention = CrossAttentionBlock(
            embed_dim=embed_dim, num_heads=num_heads, pre_norm=pre_norm
        )
        self.self_attention = SelfAttentionBlock(
            embed_dim=embed_dim, num_heads=num_heads, pre_norm=pre_norm
        )
        self.ffn = FeedForwardBlock(embed_dim=embed_dim, hidden_dim=ffn_dim, pre_norm=pre_norm)

    def forward(
        self,
        query_feats: Tensor,
        pixel_feats: Tensor,
        query_pos: Tensor,
        pixel_pos: Tensor,
        attend_mask: Tensor,
    ) -> Tensor:
        """(B, Q, C) queries to (B, Q, C), looking where `attend_mask` (B, 1, Q, S) is True."""
        query_feats = self.cross_attention(
            query_feats,
            pixel_feats,
            position=query_pos,
            memory_position=pixel_pos,
            attend_mask=attend_mask,
        )
        return self.ffn(self.self_attention(query_feats, position=query_pos))


class DualPathLayer(nn.Module):
    """A pixel update and a query update in a chosen order, or only one of them (Table 3).

    Args:
        embed_dim: C.
        num_heads: attention heads.
        ffn_dim: hidden width of the feed-forward blocks.
        update: which updates, in which order. The second reads what the first has written.
        pre_norm: normalise before instead of after each block.

    Raises:
        ValueError: `update` is not one of `UPDATES`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        ffn_dim: int,
        update: Update = "pixel_then_query",
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        if update not in UPDATES:
            raise ValueError(f"update is {update!r}; expected one of {', '.join(UPDATES)}")
        self.update = update
        if update != "query_only":
            self.pixel_update = PixelUpdate(
                embed_dim=embed_dim, num_heads=num_heads, ffn_dim=ffn_dim, pre_norm=pre_norm
            )
        if update != "pixel_only":
            self.query_update = QueryUpdate(
                embed_dim=embed_dim, num_heads=num_heads, ffn_dim=ffn_dim, pre_norm=pre_norm
            )

    def forward(
        self,
        query_feats: Tensor,
        pixel_feats: Tensor,
        query_pos: Tensor,
        pixel_pos: Tensor,
        attend_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Update both streams.

        Args:
            query_feats: (B, Q, C).
            pixel_feats: (B, S, C).
            query_pos: (B, Q, C).
            pixel_pos: (1, S, C).
            attend_mask: (B, 1, Q, S) bool, True where a query may look; unused and None if only
                pixels are updated.

        Returns:
            Queries (B, Q, C) and pixels (B, S, C).
        """
        if self.update == "pixel_then_query":
            pixel_feats = self.pixel_update(pixel_feats, query_feats, pixel_pos, query_pos)
        if self.update != "pixel_only":
            query_feats = self.query_update(
                query_feats, pixel_feats, query_pos, pixel_pos, attend_mask
            )
        if self.update in ("query_then_pixel", "pixel_only"):
            pixel_feats = self.pixel_update(pixel_feats, query_feats, pixel_pos, query_pos)
        return query_feats, pixel_feats
