"""One query stage: the queries look at each other, then each at its box (equation 1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from queryseg.layers import SelfAttentionBlock
from queryseg.projects.queryinst.box_head import BoxHead
from queryseg.projects.queryinst.boxes import apply_deltas
from queryseg.projects.queryinst.roi_features import BoxFeatures


@dataclass(frozen=True)
class StagePrediction:
    """What a stage hands on.

    Args:
        class_logits: (B, Q, K) without "no object".
        boxes_xyxy_abs: (B, Q, 4) in pixels, not clipped.
        query_feats: (B, Q, C) for the next stage.
        mask_queries: (B, Q, C) that the stage's mask head reads.
        next_mask_queries: (B, Q, C) for the next stage, where the mask heads have their own.
    """

    class_logits: Tensor
    boxes_xyxy_abs: Tensor
    query_feats: Tensor
    mask_queries: Tensor
    next_mask_queries: Tensor | None


class QueryStage(nn.Module):
    """Self-attention of the queries, then the box head on the features of their boxes.

    The mask head of the stage reads the query as it is after the self-attention, q* of equation 1;
    so both tasks share query and attention. Table 6 takes them apart.

    Args:
        box_features: pools the boxes.
        box_head: refines queries and boxes.
        embed_dim: C.
        num_heads: attention heads.
        share_msa: let the mask query come out of the same attention weights; otherwise it has a
            second self-attention.
    """

    def __init__(
        self,
        *,
        box_features: BoxFeatures,
        box_head: BoxHead,
        embed_dim: int,
        num_heads: int = 8,
        share_msa: bool = True,
    ) -> None:
        super().__init__()
        self.box_features = box_features
        self.attention = SelfAttentionBlock(embed_dim=embed_dim, num_heads=num_heads)
        self.mask_attention = (
            None if share_msa else SelfAttentionBlock(embed_dim=embed_dim, num_heads=num_heads)
        )
        self.box_head = box_head

    def forward(
        self,
        features: Sequence[Tensor],
        boxes_xyxy_abs: Tensor,
        query_feats: Tensor,
        mask_queries: Tensor | None,
    ) -> StagePrediction:
        """Refine boxes and queries.

        Args:
            features: levels (B, C, H, W), finest first.
            boxes_xyxy_abs: (B, Q, 4) of the stage before.
            query_feats: (B, Q, C) of the stage before.
            mask_queries: (B, Q, C) where the mask heads have queries of their own.
        """
        batch, num_queries = query_feats.shape[:2]
        images = torch.arange(batch, device=query_feats.device).repeat_interleave(num_queries)
        box_feats = self.box_features(features, boxes_xyxy_abs.flatten(0, 1), images)
        attended = self.attention(query_feats)
        for_masks = self._attend_for_masks(query_feats, mask_queries, attended)
        refined, class_logits, deltas = self.box_head(box_feats, attended)
        return StagePrediction(
            class_logits=class_logits,
            boxes_xyxy_abs=apply_deltas(boxes_xyxy_abs, deltas.to(boxes_xyxy_abs.dtype)),
            query_feats=refined,
            mask_queries=for_masks,
            next_mask_queries=None if mask_queries is None else for_masks,
        )

    def _attend_for_masks(
        self, query_feats: Tensor, mask_queries: Tensor | None, attended: Tensor
    ) -> Tensor:
        if mask_queries is None and self.mask_attention is None:
            return attended
        attention = self.mask_attention or self.attention
        return attention(query_feats if mask_queries is None else mask_queries)
