"""The stages of QueryInst, from learned boxes to detected ones."""

from collections.abc import Sequence

from torch import Tensor, nn

from queryseg.projects.queryinst.box_head import BoxHead
from queryseg.projects.queryinst.proposals import BoxInit, ProposalQueries
from queryseg.projects.queryinst.roi_features import BoxFeatures
from queryseg.projects.queryinst.stage import QueryStage, StagePrediction


class QueryInstDecoder(nn.Module):
    """Stages that refine queries and boxes in turn (section 3.1).

    Between stages queries keep their gradient and boxes lose it.

    Args:
        embed_dim: C.
        num_classes: K.
        num_queries: N.
        num_stages: S.
        box_features: pools the boxes, for every stage.
        num_heads: heads of the self-attention.
        dynamic_dim: D of the dynamic convolutions.
        ffn_dim: hidden width of the feed-forward blocks.
        num_class_layers: layers before the class logits.
        num_box_layers: layers before the box deltas.
        share_query: one set of queries for boxes and masks (Table 6); otherwise a mask query is
            handed from stage to stage as it leaves the self-attention.
        share_msa: one self-attention for both.
        box_init: where the learned boxes start; see `ProposalQueries`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_classes: int,
        num_queries: int,
        num_stages: int,
        box_features: BoxFeatures,
        num_heads: int = 8,
        dynamic_dim: int = 64,
        ffn_dim: int = 2048,
        num_class_layers: int = 1,
        num_box_layers: int = 3,
        share_query: bool = True,
        share_msa: bool = True,
        box_init: BoxInit = "image",
    ) -> None:
        super().__init__()
        self.proposals = ProposalQueries(
            num_queries=num_queries,
            embed_dim=embed_dim,
            separate_mask_queries=not share_query,
            box_init=box_init,
        )
        self.stages = nn.ModuleList(
            QueryStage(
                box_features=box_features,
                box_head=BoxHead(
                    embed_dim=embed_dim,
                    num_classes=num_classes,
                    resolution=box_features.resolution,
                    dynamic_dim=dynamic_dim,
                    ffn_dim=ffn_dim,
                    num_class_layers=num_class_layers,
                    num_box_layers=num_box_layers,
                ),
                embed_dim=embed_dim,
                num_heads=num_heads,
                share_msa=share_msa,
            )
            for _ in range(num_stages)
        )

    def forward(
        self, features: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[StagePrediction]:
        """Detect in a batch.

        Args:
            features: levels (B, C, H, W), finest first.
            image_sizes: (height, width) of each image without padding.

        Returns:
            The prediction of every stage.
        """
        boxes, query_feats, mask_queries = self.proposals(image_sizes)
        predictions: list[StagePrediction] = []
        for stage in self.stages:
            predictions.append(stage(features, boxes, query_feats, mask_queries))
            boxes = predictions[-1].boxes_xyxy_abs.detach()
            query_feats = predictions[-1].query_feats
            mask_queries = predictions[-1].next_mask_queries
        return predictions
