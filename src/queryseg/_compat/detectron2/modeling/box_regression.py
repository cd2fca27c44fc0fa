"""Ways to write a box as a change of another box, and the loss on such changes."""

import math
from collections.abc import Sequence
from types import EllipsisType

import torch
from fvcore.nn import giou_loss, smooth_l1_loss
from torch import Tensor

from detectron2._subset import outside
from detectron2.layers import cat, ciou_loss, diou_loss
from detectron2.structures import Boxes

# The largest growth that is decoded: from a small anchor (16 pixels) to a whole image (1000).
MAX_LOG_SCALE = math.log(1000.0 / 16)

_BOX_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}


class Box2BoxTransform:
    """Shift of the centre relative to the size, and logarithm of the growth of the size.

    Args:
        weights: factors (wx, wy, ww, wh) of the four deltas (dx, dy, dw, dh).
        scale_clamp: dw and dh are cut to this before they are decoded.
    """

    def __init__(self, weights: Sequence[float], scale_clamp: float = MAX_LOG_SCALE) -> None:
        self.weights = weights
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Deltas (N, 4) that turn `src_boxes` into `target_boxes`, both (N, 4) xyxy."""
        wx, wy, ww, wh = self.weights
        x, y, width, height = _centres_and_sizes(src_boxes)
        target_x, target_y, target_width, target_height = _centres_and_sizes(target_boxes)
        assert (width > 0).all().item(), "source boxes must have a positive width"
        deltas = (
            wx * (target_x - x) / width,
            wy * (target_y - y) / height,
            ww * torch.log(target_width / width),
            wh * torch.log(target_height / height),
        )
        return torch.stack(deltas, dim=1)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Apply k sets of deltas to each box, in float32.

        Args:
            deltas: (N, 4 * k).
            boxes: (N, 4) xyxy.

        Returns:
            (N, 4 * k) xyxy boxes.
        """
        deltas = deltas.float()
        wx, wy, ww, wh = self.weights
        x, y, width, height = (v[:, None] for v in _centres_and_sizes(boxes.to(deltas.dtype)))
        dx, dy, dw, dh = deltas.unflatten(1, (-1, 4)).unbind(dim=-1)
        x = dx / wx * width + x
        y = dy / wy * height + y
        half_width = 0.5 * (torch.exp((dw / ww).clamp(max=self.scale_clamp)) * width)
        half_height = 0.5 * (torch.exp((dh / wh).clamp(max=self.scale_clamp)) * height)
        corners = (x - half_width, y - half_height, x + half_width, y + half_height)
        return torch.stack(corners, dim=-1).reshape(deltas.shape)


class Box2BoxTransformLinear:
    """Distances from the centre of a box to the four sides of another, as in FCOS.

    Args:
        normalize_by_size: divide them by the size of the first box.
    """

    def __init__(self, normalize_by_size: bool = True) -> None:
        self.normalize_by_size = normalize_by_size

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Distances (N, 4) to left, top, right and bottom of `target_boxes` (N, 4) xyxy."""
        centre, size = self._centre_and_unit(src_boxes)
        low, high = target_boxes.split(2, dim=1)
        return torch.cat([centre - low, high - centre], dim=1) / size

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Boxes (N, 4 * k) xyxy at `deltas` (N, 4 * k), negative ones cut to 0, from `boxes`."""
        centre, size = self._centre_and_unit(boxes.to(deltas.dtype))
        distances = deltas.relu().unflatten(1, (-1, 4)) * size[:, None]
        low, high = distances.split(2, dim=2)
        corners = torch.cat([centre[:, None] - low, centre[:, None] + high], dim=2)
        return corners.reshape(deltas.shape)

    def _centre_and_unit(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Centres (N, 2), and (N, 4) what the distances are measured in."""
        low, high = boxes.split(2, dim=1)
        size = high - low if self.normalize_by_size else torch.ones_like(low)
        return 0.5 * (low + high), size.repeat(1, 2)


def _dense_box_regression_loss(
    anchors: Sequence[Boxes | Tensor],
    box2box_transform: Box2BoxTransform | Box2BoxTransformLinear,
    pred_anchor_deltas: Sequence[Tensor],
    gt_boxes: Sequence[Tensor],
    fg_mask: Tensor | EllipsisType,
    box_reg_loss_type: str = "smooth_l1",
    smooth_l1_beta: float = 0.0,
) -> Tensor:
    """Sum the box loss of the foreground anchors of all levels.

    Args:
        anchors: per level (R_l, 4); R is their sum.
        pred_anchor_deltas: per level (B, R_l, 4).
        gt_boxes: per image (R, 4), the box each anchor belongs to.
        fg_mask: (B, R) bool.
        box_reg_loss_type: "smooth_l1" on the deltas; "giou", "diou" or "ciou" on the boxes.
        smooth_l1_beta: where smooth L1 turns linear; 0 = L1.

    Raises:
        ValueError: another loss type.
    """
    sources = cat([a.tensor if isinstance(a, Boxes) else a for a in anchors])
    predicted = cat(pred_anchor_deltas, dim=1)
    if box_reg_loss_type == "smooth_l1":
        targets = torch.stack([box2box_transform.get_deltas(sources, boxes) for boxes in gt_boxes])
        return smooth_l1_loss(
            predicted[fg_mask], targets[fg_mask], beta=smooth_l1_beta, reduction="sum"
        )
    if box_reg_loss_type not in _BOX_LOSSES:
        known = ", ".join(["smooth_l1", *_BOX_LOSSES])
        raise ValueError(f"box_reg_loss_type {box_reg_loss_type!r} is not one of {known}")
    boxes = torch.stack([box2box_transform.apply_deltas(deltas, sources) for deltas in predicted])
    targets = torch.stack(list(gt_boxes))
    return _BOX_LOSSES[box_reg_loss_type](boxes[fg_mask], targets[fg_mask], reduction="sum")


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x and y of the centre, width and height, each (N,), of (N, 4) xyxy boxes."""
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height


__getattr__ = outside(__name__, "Box2BoxTransformRotated")
