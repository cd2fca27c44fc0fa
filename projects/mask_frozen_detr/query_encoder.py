"""Encoder of the object queries (section 3.4)."""

from torch import Tensor, nn

from queryseg.layers import CrossAttentionBlock, FeedForwardBlock, SelfAttentionBlock
from queryseg.layers.sine_boxes import sine_box_encoding


class QueryEncoder(nn.Module):
    """Layers in which queries read from each other, from their box, and think.

    Object-to-object attention (equation 10) adds a projected sine encoding of the boxes to queries
    and keys: of what the paper leaves open, that is what its parameters fit. Queries attend to the
    queries of their own image that a mask is predicted for.

    Args:
        num_layers: how many; as many as the region encoder.
        embed_dim: d.
        num_heads: attention heads.
        ffn_ratio: hidden width of the feed-forward blocks, in d.
        feed_forward: whether there are any.
        object_to_object: O2O, attention among queries.
        box_to_object: B2O, attention of each query to the cells of its box (equation 11).
        box_dims: channels of the sine encoding of a box.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        embed_dim: int,
        num_heads: int = 8,
        ffn_ratio: int = 4,
        feed_forward: bool = True,
        object_to_object: bool = False,
        box_to_object: bool = True,
        box_dims: int = 512,
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.layers = nn.ModuleList(
            QueryLayer(
                embed_dim=embed_dim,
                num_heads=num_heads,
                ffn_dim=ffn_ratio * embed_dim if feed_forward else 0,
                object_to_object=object_to_object,
                box_to_object=box_to_object,
            )
            for _ in range(num_layers)
        )
        self.box_dims = box_dims
        self.box_projection = nn.Linear(box_dims, embed_dim) if object_to_object else None

    def box_position(self, boxes_cxcywh_norm: Tensor) -> Tensor | None:
        """(N, d) what O2O knows of boxes (N, 4); None without O2O."""
        if self.box_projection is None:
            return None
        waves = sine_box_encoding(boxes_cxcywh_norm, embed_dim=self.box_dims)
        return self.box_projection(waves.to(self.box_projection.weight.dtype))

    def step(
        self,
        index: int,
        queries: Tensor,
        tokens: Tensor,
        *,
        token_position: Tensor | None,
        box_position: Tensor | None,
        image_idx: Tensor,
    ) -> Tensor:
        """Queries (N, d) after layer `index`.

        Args:
            index: which layer.
            queries: (N, d).
            tokens: (N, h * w, d) cells of the box of each query.
            token_position: (h * w, d), added to keys.
            box_position: as `box_position` gave it.
            image_idx: (N,) int64 image of each query.
        """
        return self.layers[index](queries, tokens, token_position, box_position, image_idx)


class QueryLayer(nn.Module):
    """One layer of `QueryEncoder`; arguments as there, no feed-forward block at `ffn_dim` 0."""

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        ffn_dim: int,
        object_to_object: bool,
        box_to_object: bool,
    ) -> None:
        super().__init__()
        self.object_attention = (
            SelfAttentionBlock(embed_dim=embed_dim, num_heads=num_heads)
            if object_to_object
            else None
        )
        self.box_attention = (
            CrossAttentionBlock(embed_dim=embed_dim, num_heads=num_heads) if box_to_object else None
        )
        self.ffn = (
            FeedForwardBlock(embed_dim=embed_dim, hidden_dim=ffn_dim, activation="gelu")
            if ffn_dim
            else nn.Identity()
        )

    def forward(
        self,
        queries: Tensor,
        tokens: Tensor,
        token_position: Tensor | None,
        box_position: Tensor | None,
        image_idx: Tensor,
    ) -> Tensor:
        """Update queries (N, d); the other arguments as in `QueryEncoder.step`."""
        if self.object_attention is not None:
            same_image = image_idx[:, None] == image_idx
            queries = self.object_attention(
                queries[None],
                position=None if box_position is None else box_position[None],
                attend_mask=same_image,
            )[0]
        if self.box_attention is not None:
            queries = self.box_attention(
                queries[:, None], tokens, memory_position=token_position
            ).flatten(0, 1)
        return self.ffn(queries)
