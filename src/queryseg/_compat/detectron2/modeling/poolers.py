"""Features of boxes, out of the level of the pyramid that suits their size."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import RoIPool

from detectron2._subset import NeedsRealDetectron2
from detectron2.layers import ROIAlign, cat, nonzero_tuple
from detectron2.structures import Boxes


def assign_boxes_to_levels(
    box_lists: Sequence[Boxes],
    min_level: int,
    max_level: int,
    canonical_box_size: int,
    canonical_level: int,
) -> Tensor:
    """Choose a pyramid level for each box (https://arxiv.org/abs/1612.03144, equation 1).

    Args:
        box_lists: boxes of each image; N is their sum.
        min_level, max_level: range of the levels.
        canonical_box_size: side, in pixels, of a box that belongs to `canonical_level`; each
            doubling is one level up.

    Returns:
        (N,) int64 levels, counted from `min_level`.
    """
    sizes = torch.sqrt(cat([boxes.area() for boxes in box_lists]))
    levels = torch.floor(canonical_level + torch.log2(sizes / canonical_box_size + 1e-8))
    return levels.clamp(min=min_level, max=max_level).to(torch.int64) - min_level


def convert_boxes_to_pooler_format(box_lists: Sequence[Boxes]) -> Tensor:
    """Join the boxes of all images to (N, 5) rows (image index, x1, y1, x2, y2)."""
    boxes = torch.cat([boxes.tensor for boxes in box_lists])
    counts = torch.tensor([len(boxes) for boxes in box_lists], device=boxes.device)
    images = torch.arange(len(box_lists), dtype=boxes.dtype, device=boxes.device)
    return torch.cat([images.repeat_interleave(counts)[:, None], boxes], dim=1)


class ROIPooler(nn.Module):
    """Pools each box from one of several feature maps.

    Args:
        output_size: side, or (height, width), of the pooled features.
        scales: 1 / stride of each map; strides are powers of two and double.
        sampling_ratio: of `ROIAlign`.
        pooler_type: "ROIAlignV2" (aligned), "ROIAlign" (not aligned) or "ROIPool".
        canonical_box_size, canonical_level: see `assign_boxes_to_levels`.

    Raises:
        ValueError: an unknown pooler type.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        assert len(size) == 2, f"output_size must be one or two numbers, got {output_size}"
        self.output_size = size
        self.level_poolers = nn.ModuleList(
            _make_pooler(pooler_type, size, scale, sampling_ratio) for scale in scales
        )
        levels = [-math.log2(scale) for scale in scales]
        expected = range(int(levels[0]), int(levels[0]) + len(levels))
        assert levels == list(expected) and levels[0] >= 0, (
            f"strides 1 / {scales} are not powers of two that double from one to the next"
        )
        assert canonical_box_size > 0, "canonical_box_size must be positive"
        self.min_level, self.max_level = expected[0], expected[-1]
        self.canonical_level = canonical_level
        self.canonical_box_size = canonical_box_size

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Pool the boxes of all images.

        Args:
            x: feature maps, each (B, C, H_l, W_l).
            box_lists: B sets of boxes in pixels of the image; N in all.

        Returns:
            (N, C, output height, output width), in the order of the boxes.
        """
        assert isinstance(x, list) and isinstance(box_lists, list), "expected two lists"
        assert len(x) == len(self.level_poolers), f"{len(x)} maps, {len(self.level_poolers)} scales"
        assert len(box_lists) == len(x[0]), f"{len(box_lists)} sets of boxes, {len(x[0])} images"
        if len(box_lists) == 0:
            return x[0].new_zeros((0, x[0].shape[1], *self.output_size))
        rois = convert_boxes_to_pooler_format(box_lists)
        if len(x) == 1:
            return self.level_poolers[0](x[0], rois)
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        pooled = x[0].new_zeros((len(rois), x[0].shape[1], *self.output_size))
        for level, (features, pooler) in enumerate(zip(x, self.level_poolers)):
            (chosen,) = nonzero_tuple(levels == level)
            pooled.index_put_((chosen,), pooler(features, rois[chosen]))
        return pooled


def _make_pooler(
    pooler_type: str, size: tuple[int, ...], scale: float, sampling_ratio: int
) -> nn.Module:
    match pooler_type:
        case "ROIAlign" | "ROIAlignV2":
            return ROIAlign(size, scale, sampling_ratio, aligned=pooler_type == "ROIAlignV2")
        case "ROIPool":
            return RoIPool(size, scale)
        case "ROIAlignRotated":
            raise NeedsRealDetectron2("pooler_type='ROIAlignRotated'")
    raise ValueError(f"unknown pooler_type {pooler_type!r}: use ROIAlignV2, ROIAlign or ROIPool")
