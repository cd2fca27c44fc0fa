"""Axis-aligned boxes: the formats they come in, a container, and overlap measures."""

import math
from collections.abc import Iterator, Sequence
from enum import IntEnum, unique
from typing import TypeVar

import numpy as np
import torch

BoxLike = TypeVar("BoxLike", list, tuple, np.ndarray, torch.Tensor)


@unique
class BoxMode(IntEnum):
    """How the numbers of a box are to be read. The relative modes exist by name only."""

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4

    @staticmethod
    def convert(box: BoxLike, from_mode: "BoxMode", to_mode: "BoxMode") -> BoxLike:
        """Rewrite boxes from one mode to another; the input is left as it is.

        Args:
            box: one box as a list or tuple of 4 (or 5, with angle) numbers, or an array or tensor
                of shape (N, 4) or (N, 5).
            from_mode: the mode of `box`.
            to_mode: the mode to return. Covered: XYXY <-> XYWH, XYWH -> XYWHA, XYWHA -> XYXY
                (the upright box around the rotated one).

        Returns:
            The boxes in the type they came in; a list or tuple passes through float32 (or int64).

        Raises:
            NotImplementedError: no conversion between these two modes.
        """
        if from_mode == to_mode:
            return box
        relative = (BoxMode.XYXY_REL, BoxMode.XYWH_REL)
        assert from_mode not in relative and to_mode not in relative, "relative boxes: no support"
        rule = _CONVERSIONS.get((from_mode, to_mode))
        if rule is None:
            raise NotImplementedError(
                f"No conversion from box mode {from_mode!r} to {to_mode!r}: go through XYXY_ABS or "
                "XYWH_ABS."
            )
        if isinstance(box, torch.Tensor):
            return rule(box)
        if isinstance(box, np.ndarray):
            return rule(torch.from_numpy(box.copy())).numpy()
        assert len(box) in (4, 5), f"a single box has 4 or 5 numbers, not {len(box)}"
        return type(box)(rule(torch.tensor(box)[None])[0].tolist())


def _xywh_to_xyxy(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat((boxes[:, :2], boxes[:, 2:4] + boxes[:, :2], boxes[:, 4:]), dim=1)


def _xyxy_to_xywh(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat((boxes[:, :2], boxes[:, 2:4] - boxes[:, :2], boxes[:, 4:]), dim=1)


def _xywh_to_xywha(boxes: torch.Tensor) -> torch.Tensor:
    exact = boxes.double()
    centers = exact[:, :2] + exact[:, 2:4] / 2
    no_angle = exact.new_zeros(len(exact), 1)
    return torch.cat((centers, exact[:, 2:4], no_angle), dim=1).to(boxes.dtype)


def _xywha_to_xyxy(boxes: torch.Tensor) -> torch.Tensor:
    assert boxes.shape[-1] == 5, f"XYWHA boxes have 5 numbers, not {boxes.shape[-1]}"
    x, y, w, h, degrees = boxes.double().unbind(dim=1)
    radians = degrees * math.pi / 180.0
    cos, sin = radians.cos().abs(), radians.sin().abs()
    upright_w, upright_h = cos * w + sin * h, cos * h + sin * w
    left, top = x - upright_w / 2, y - upright_h / 2
    corners = (left, top, left + upright_w, top + upright_h)
    return torch.stack(corners, dim=1).to(boxes.dtype)


_CONVERSIONS = {
    (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS): _xywh_to_xyxy,
    (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS): _xyxy_to_xywh,
    (BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS): _xywh_to_xywha,
    (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS): _xywha_to_xyxy,
}


class Boxes:
    """The boxes of one image as a float32 tensor of shape (N, 4), each row x0, y0, x1, y1.

    Attributes:
        tensor: the (N, 4) float32 tensor.
    """

    def __init__(self, tensor: torch.Tensor | np.ndarray | Sequence[Sequence[float]]) -> None:
        device = tensor.device if isinstance(tensor, torch.Tensor) else torch.device("cpu")
        boxes = torch.as_tensor(tensor, dtype=torch.float32, device=device)
        if boxes.numel() == 0:
            boxes = boxes.reshape(-1, 4)
        assert boxes.dim() == 2 and boxes.size(1) == 4, f"boxes need (N, 4), not {boxes.shape}"
        self.tensor = boxes

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.tensor)

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"

    def __getitem__(self, item: int | slice | torch.Tensor) -> "Boxes":
        """Select boxes; one integer gives a `Boxes` of length 1."""
        chosen = self.tensor[item].view(1, -1) if isinstance(item, int) else self.tensor[item]
        assert chosen.dim() == 2, f"indexing boxes with {item} does not give a matrix"
        return Boxes(chosen)

    def clone(self) -> "Boxes":
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device | str) -> "Boxes":
        """Move to a device. Boxes are float32 always, so a dtype is not accepted."""
        return Boxes(self.tensor.to(device=device))

    def area(self) -> torch.Tensor:
        """Width times height of each box, shape (N,)."""
        left, top, right, bottom = self.tensor.unbind(dim=1)
        return (right - left) * (bottom - top)

    def clip(self, box_size: tuple[int, int]) -> None:
        """Limit x to [0, width] and y to [0, height]; `tensor` is replaced, not written into."""
        assert torch.isfinite(self.tensor).all(), "boxes hold Inf or NaN"
        height, width = box_size
        x = self.tensor[:, 0::2].clamp(min=0, max=width)
        y = self.tensor[:, 1::2].clamp(min=0, max=height)
        self.tensor = torch.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), dim=1)

    def nonempty(self, threshold: float = 0.0) -> torch.Tensor:
        """True where both sides are longer than `threshold`, shape (N,)."""
        sides = self.tensor[:, 2:] - self.tensor[:, :2]
        return (sides > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> torch.Tensor:
        """True for boxes that leave an image of (height, width) by no more than the threshold."""
        height, width = box_size
        left, top, right, bottom = self.tensor.unbind(dim=-1)
        starts_inside = (left >= -boundary_threshold) & (top >= -boundary_threshold)
        ends_inside = (right < width + boundary_threshold) & (bottom < height + boundary_threshold)
        return starts_inside & ends_inside

    def get_centers(self) -> torch.Tensor:
        """Box centres as (N, 2) of x, y."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply x and y coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: Sequence["Boxes"]) -> "Boxes":
        """One `Boxes` of all boxes, in order; never shares memory with the inputs."""
        assert isinstance(boxes_list, list | tuple)
        if not boxes_list:
            return cls(torch.empty(0))
        assert all(isinstance(boxes, Boxes) for boxes in boxes_list)
        return cls(torch.cat([boxes.tensor for boxes in boxes_list], dim=0))


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Area shared by each pair of boxes, shape (N, M)."""
    first, second = boxes1.tensor[:, None], boxes2.tensor[None]
    ends = torch.minimum(first[..., 2:], second[..., 2:])
    starts = torch.maximum(first[..., :2], second[..., :2])
    return (ends - starts).clamp(min=0).prod(dim=2)


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection over union of each pair of boxes, shape (N, M); 0 where they do not overlap."""
    shared = pairwise_intersection(boxes1, boxes2)
    union = boxes1.area()[:, None] + boxes2.area() - shared
    return _ratio_where_shared(shared, union)


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection over the area of the second box, shape (N, M); 0 without overlap."""
    shared = pairwise_intersection(boxes1, boxes2)
    return _ratio_where_shared(shared, boxes2.area())


def _ratio_where_shared(shared: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return torch.where(shared > 0, shared / whole, shared.new_zeros(1))


def pairwise_point_box_distance(points: torch.Tensor, boxes: Boxes) -> torch.Tensor:
    """Distance of each point to the left, top, right and bottom edge of each box.

    Args:
        points: (N, 2) of x, y.
        boxes: M boxes.

    Returns:
        (N, M, 4), all four positive for a point inside the box.
    """
    corners = boxes.tensor[None]
    return torch.cat((points[:, None] - corners[..., :2], corners[..., 2:] - points[:, None]), 2)


def matched_pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection over union of box i of the first with box i of the second, shape (N,)."""
    assert len(boxes1) == len(boxes2), f"{len(boxes1)} boxes against {len(boxes2)}"
    first, second = boxes1.tensor, boxes2.tensor
    ends = torch.minimum(first[:, 2:], second[:, 2:])
    starts = torch.maximum(first[:, :2], second[:, :2])
    shared = (ends - starts).clamp(min=0).prod(dim=1)
    return shared / (boxes1.area() + boxes2.area() - shared)
