"""Non-maximum suppression of axis-aligned boxes."""

from torch import Tensor
from torchvision.ops import batched_nms as _batched_nms
from torchvision.ops import nms

__all__ = ["batched_nms", "nms"]


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """NMS within each group of boxes that share an index.

    Args:
        boxes: (N, 4) xyxy, any floating dtype; computed in float32, because the offsets that keep
            the groups apart leave the range of float16.
        scores: (N,).
        idxs: (N,) group of each box, for example its class or its pyramid level.
        iou_threshold: boxes that overlap a better one by more than this are dropped.

    Returns:
        (K,) int64 indices of the kept boxes, by decreasing score.
    """
    assert boxes.shape[-1] == 4, f"expected (N, 4) boxes, got {tuple(boxes.shape)}"
    return _batched_nms(boxes.float(), scores, idxs, iou_threshold)
