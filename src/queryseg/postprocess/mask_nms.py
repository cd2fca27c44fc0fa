"""Non-maximum suppression by mask overlap, for pictures and counting."""

import torch
from torch import Tensor

PIXELS_AT_ONCE = 1 << 16


def mask_nms(masks: Tensor, scores: Tensor, max_iou: float) -> Tensor:
    """Choose masks greedily by score, leaving out those that overlap a chosen one too much.

    Classes play no role: a query that is listed with two classes is kept with the better one. AP
    is computed without this; query-based models learn not to repeat themselves, and small or
    shortly trained ones have not quite learnt it.

    Args:
        masks: (N, H, W) bool.
        scores: (N,).
        max_iou: intersection over union above which the lower-scored of two masks goes.

    Returns:
        Indices of the kept masks, by falling score.

    Example:
        >>> masks = torch.tensor([[[1, 1, 0]], [[1, 1, 0]], [[0, 1, 1]]], dtype=torch.bool)
        >>> mask_nms(masks, torch.tensor([0.5, 0.9, 0.7]), max_iou=0.5).tolist()
        [1, 2]
    """
    order = torch.argsort(scores, descending=True, stable=True)
    suppressed_by = pairwise_mask_iou(masks[order]) > max_iou
    kept: list[int] = []
    for index in range(len(order)):
        if not suppressed_by[index, kept].any():
            kept.append(index)
    return order[kept]


def pairwise_mask_iou(masks: Tensor) -> Tensor:
    """Intersection over union of all pairs of masks; 0 where both are empty.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, N) float32.
    """
    flat = masks.flatten(1)
    intersections = torch.zeros(len(masks), len(masks), device=masks.device)
    for part in flat.split(PIXELS_AT_ONCE, dim=1):
        pixels = part.float()
        intersections += pixels @ pixels.T
    areas = intersections.diagonal()
    unions = areas[:, None] + areas[None] - intersections
    return intersections / unions.clamp(min=1)
