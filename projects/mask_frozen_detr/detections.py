"""The detections of a batch that masks are predicted for."""

from dataclasses import dataclass

from torch import Tensor

from queryseg.detectors import Detected


@dataclass(frozen=True)
class Detections:
    """Queries of a batch with their boxes, one after the other.

    Args:
        image_idx: (N,) int64 image of each.
        query_idx: (N,) int64 query within the image.
        query_feats: (N, C).
        boxes_xyxy_abs: (N, 4) in pixels of the padded batch, clipped to the image.
        boxes_cxcywh_norm: (N, 4) as the detector gave them.
    """

    image_idx: Tensor
    query_idx: Tensor
    query_feats: Tensor
    boxes_xyxy_abs: Tensor
    boxes_cxcywh_norm: Tensor

    @classmethod
    def pick(cls, detected: Detected, image_idx: Tensor, query_idx: Tensor) -> "Detections":
        """Queries (N,) of images (N,)."""
        return cls(
            image_idx=image_idx,
            query_idx=query_idx,
            query_feats=detected.query_feats[image_idx, query_idx],
            boxes_xyxy_abs=detected.boxes_xyxy_abs.detach()[image_idx, query_idx],
            boxes_cxcywh_norm=detected.boxes_cxcywh_norm.detach()[image_idx, query_idx],
        )

    def __len__(self) -> int:
        return len(self.image_idx)
