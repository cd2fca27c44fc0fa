"""The RoI feature pyramid: each box under grids of growing resolution (section 3.3)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from queryseg.mask_refinement.rois import RoIs
from queryseg.ops import gather_nodes
from queryseg.ops.host_numbers import numbers_on
from queryseg.ops.quadtree import QuadtreeNodes


class RoIPyramid(nn.Module):
    """Where the features of a box come from: grid sizes, and the map that each is pooled from.

    Features are pooled (RoIAlign) at the cells that are asked for, never as dense maps.

    Args:
        strides: of the feature maps, finest first, each twice the one before.
        grid_sizes: rows (= columns) of the grids that are refined, coarse to fine.
        level_offsets: of each grid: how many maps finer than the box's own it is pooled from. The
            release takes (1, 2, 3), the paper (0, 1, 2).
        reference_size: rows of the grid of reference tokens, pooled from the box's own level.
        sampling_ratio: samples per cell and axis; 0: as many as the cell has pixels, rounded up.
        canonical_box_size: side in pixels of a box whose own level is `canonical_level`.
        canonical_level: as log2 of the stride.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int] = (4, 8, 16, 32),
        grid_sizes: Sequence[int] = (28, 56, 112),
        level_offsets: Sequence[int] = (1, 2, 3),
        reference_size: int = 14,
        sampling_ratio: int = 0,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        if len(grid_sizes) != len(level_offsets):
            raise ValueError(
                f"every grid needs a level offset, got grid_sizes {list(grid_sizes)} and "
                f"level_offsets {list(level_offsets)}"
            )
        self.scales = tuple(1 / stride for stride in strides)
        self.finest_level = int(math.log2(strides[0]))
        self.grid_sizes = tuple(grid_sizes)
        self.level_offsets = tuple(level_offsets)
        self.reference_size = reference_size
        self.sampling_ratio = sampling_ratio
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level

    def own_levels(self, rois: RoIs) -> Tensor:
        """(N,) int64: the number of the map that suits each box."""
        return rois.pyramid_levels(
            len(self.scales), self.finest_level, self.canonical_box_size, self.canonical_level
        )

    def pool(self, maps: Sequence[Tensor], rois: RoIs, size: int, offset: int = 0) -> Tensor:
        """A whole grid of every box; for small grids.

        Args:
            maps: L maps (B, C, H_l, W_l).
            rois: N boxes.
            size: rows of the grid.
            offset: maps finer than the box's own.

        Returns:
            (N, C, size, size), channels last in memory.
        """
        device = maps[0].device
        instance, y, x = (
            axis.flatten()
            for axis in torch.meshgrid(
                *(torch.arange(n, device=device) for n in (len(rois), size, size)), indexing="ij"
            )
        )
        level = (self.own_levels(rois) - offset).clamp(min=0)
        cells = gather_nodes(
            maps,
            self.scales,
            rois.boxes_xyxy_abs,
            rois.image_index,
            level.unsqueeze(1),
            [size],
            torch.stack([instance, y, x], 1),
            torch.zeros_like(instance),
            sampling_ratio=self.sampling_ratio,
        )
        channels = maps[0].shape[1]
        return cells.view(len(rois), size, size, channels).permute(0, 3, 1, 2)

    def gather(
        self,
        maps: Sequence[Tensor],
        reference_maps: Sequence[Tensor],
        rois: RoIs,
        nodes: QuadtreeNodes,
    ) -> Tensor:
        """Features of nodes.

        Args:
            maps: L maps that the refined grids are pooled from.
            reference_maps: L maps that the reference grid is pooled from; maybe the same.
            rois: N boxes.
            nodes: T nodes; grid 0 is the reference grid, the others are `grid_sizes`.

        Returns:
            (T, C).
        """
        own = self.own_levels(rois)
        levels = [(own - offset).clamp(min=0) for offset in self.level_offsets]
        other = [i for i, pair in enumerate(zip(maps, reference_maps)) if pair[0] is not pair[1]]
        numbers = list(range(len(maps)))
        for place, i in enumerate(other):
            numbers[i] = len(maps) + place
        reference = numbers_on(own.device, numbers)[own]
        return gather_nodes(
            [*maps, *(reference_maps[i] for i in other)],
            [*self.scales, *(self.scales[i] for i in other)],
            rois.boxes_xyxy_abs,
            rois.image_index,
            torch.stack([reference, *levels], 1),
            nodes.grid_sizes,
            nodes.index,
            nodes.level,
            sampling_ratio=self.sampling_ratio,
        )
