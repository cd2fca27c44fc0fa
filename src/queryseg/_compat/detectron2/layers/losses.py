"""Box regression losses that also see the distance and the shape of the boxes."""

from collections.abc import Callable

from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss


def diou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """Distance-IoU loss (https://arxiv.org/abs/1911.08287, equation 7).

    Args:
        boxes1, boxes2: xyxy boxes, (N, 4) or (4,).
        reduction: "none", "mean" (0 for no boxes) or "sum".
        eps: keeps the divisions finite.
    """
    return _checked(distance_box_iou_loss, boxes1, boxes2, reduction, eps)


def ciou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """Complete-IoU loss (same paper, equation 10); the arguments are those of `diou_loss`."""
    return _checked(complete_box_iou_loss, boxes1, boxes2, reduction, eps)


def _checked(
    loss: Callable[..., Tensor], boxes1: Tensor, boxes2: Tensor, reduction: str, eps: float
) -> Tensor:
    x1, y1, x2, y2 = boxes1.unbind(dim=-1)
    assert (x2 >= x1).all(), "bad box: x1 larger than x2"
    assert (y2 >= y1).all(), "bad box: y1 larger than y2"
    return loss(boxes1, boxes2, reduction=reduction, eps=eps)
