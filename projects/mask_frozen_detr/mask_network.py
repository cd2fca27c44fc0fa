"""The trainable part: from what a detector knows to masks (Figure 7)."""

from dataclasses import dataclass

from torch import Tensor, nn

from queryseg.detectors import Detected
from queryseg.projects.mask_frozen_detr.detections import Detections
from queryseg.projects.mask_frozen_detr.fusion import FeatureFusion
from queryseg.projects.mask_frozen_detr.image_encoder import ImageEncoder
from queryseg.projects.mask_frozen_detr.mask_scoring import MaskScoring
from queryseg.projects.mask_frozen_detr.query_encoder import QueryEncoder
from queryseg.projects.mask_frozen_detr.regions import BoxRegions, WholeImage


@dataclass(frozen=True)
class MaskPrediction:
    """Masks of N detections.

    Args:
        mask_logits: (N, h, w) in the region of each.
        ious: (N, K) predicted IoU with an object of each class; None without mask scoring.
    """

    mask_logits: Tensor
    ious: Tensor | None


class MaskNetwork(nn.Module):
    """Image, region and query encoders, a mask head and mask scoring, each of which may be absent.

    With none of them it is the baseline that needs no training (section 3.1).

    Args:
        embed_dim: C of the detector's encoder and queries.
        encoder_layer: which layer of the detector's encoder the features E are taken from, counted
            from one (Table 15).
        image_encoder: refines E (section 3.2).
        fusion: adds the backbone's map.
        regions: the part of the image that a mask is predicted in.
        feature_mapper: C to d on the fused map; None leaves the width (section 3.3).
        query_mapper: C to d on the queries; likewise.
        region_encoder: layers on the cells of each region; None for none.
        query_encoder: layers on the queries, in turn with those of the region encoder; None for
            none.
        head: mask logits from queries and cells.
        scoring: judges the masks; None to take the mean foreground probability (equation 2).
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        encoder_layer: int,
        image_encoder: ImageEncoder,
        fusion: FeatureFusion,
        regions: BoxRegions | WholeImage,
        feature_mapper: nn.Module | None,
        query_mapper: nn.Module | None,
        region_encoder: nn.Module | None,
        query_encoder: QueryEncoder | None,
        head: nn.Module,
        scoring: MaskScoring | None,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.encoder_layer = encoder_layer
        self.image_encoder = image_encoder
        self.fusion = fusion
        self.regions = regions
        self.feature_mapper = feature_mapper or nn.Identity()
        self.query_mapper = query_mapper or nn.Identity()
        self.region_encoder = region_encoder
        self.query_encoder = query_encoder
        self.head = head
        self.scoring = scoring

    def features(self, detected: Detected) -> Tensor:
        """The map (B, d, h, w) that the regions of a batch are cut from (equations 5 and 14)."""
        encoded = self.image_encoder(
            detected.encoder_layers[self.encoder_layer],
            detected.position,
            detected.spatial_shapes,
            valid_ratios=detected.valid_ratios,
            padding_mask=detected.padding_mask,
        )
        fused = self.fusion(detected.stage1, encoded)
        return self.feature_mapper(fused.movedim(1, -1)).movedim(-1, 1)

    def forward(self, features: Tensor, detections: Detections) -> MaskPrediction:
        """Predict the mask of each detection.

        Args:
            features: as `features` gave them.
            detections: N queries of the same batch.
        """
        cells = self.regions.pool(features, detections)
        tokens, queries = self.encode(cells.flatten(1, 2), detections)
        size = cells.shape[1:3]
        mask_logits = self.head(queries, tokens).unflatten(1, size)
        ious = None
        if self.scoring is not None:
            ious = self.scoring(mask_logits, tokens.unflatten(1, size))
        return MaskPrediction(mask_logits, ious)

    def encode(self, tokens: Tensor, detections: Detections) -> tuple[Tensor, Tensor]:
        """Refine the cells (N, P, d) of each region and the queries, layer by layer.

        The paper does not say whether region and query layers take turns; here they do.

        Returns:
            The cells (N, P, d) and the queries (N, d).
        """
        queries = self.query_mapper(detections.query_feats)
        regions, encoder = self.region_encoder, self.query_encoder
        position = None if regions is None else regions.position
        boxes = None if encoder is None else encoder.box_position(detections.boxes_cxcywh_norm)
        depth = max(part.num_layers if part else 0 for part in (regions, encoder))
        for index in range(depth):
            if regions is not None:
                tokens = regions.step(index, tokens)
            if encoder is not None:
                queries = encoder.step(
                    index,
                    queries,
                    tokens,
                    token_position=position,
                    box_position=boxes,
                    image_idx=detections.image_idx,
                )
        return tokens, queries
