"""Features of boxes out of the pyramid, cell by cell."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from queryseg.ops import gather_nodes

FINEST_SIDE = 56
"""Boxes of up to twice this side are pooled from the finest level."""


class BoxFeatures(nn.Module):
    """RoIAlign (as Detectron2's ROIAlignV2) from the level that suits the size of a box.

    Cells come position by position with the channels last: what dynamic convolutions read. No
    gradient flows to the boxes.

    Args:
        resolution: cells on each side.
        strides: of the pyramid's levels, finest first.
        sampling_ratio: samples per cell and axis.
        finest_side: see `FINEST_SIDE`.
    """

    def __init__(
        self,
        *,
        resolution: int,
        strides: Sequence[int] = (4, 8, 16, 32),
        sampling_ratio: int = 2,
        finest_side: float = FINEST_SIDE,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.scales = [1 / stride for stride in strides]
        self.sampling_ratio = sampling_ratio
        self.finest_side = finest_side

    def forward(self, features: Sequence[Tensor], boxes_xyxy: Tensor, image_idx: Tensor) -> Tensor:
        """Pool boxes of a batch.

        Args:
            features: levels (B, C, H, W), finest first.
            boxes_xyxy: (N, 4) in pixels.
            image_idx: (N,) int64, image of each box.

        Returns:
            (N, R * R, C) for a resolution R, rows of cells one after the other.
        """
        boxes_xyxy = boxes_xyxy.detach()
        count, side = len(boxes_xyxy), self.resolution
        device = boxes_xyxy.device
        cells = torch.cartesian_prod(
            torch.arange(count, device=device),
            torch.arange(side, device=device),
            torch.arange(side, device=device),
        )
        pooled = gather_nodes(
            features,
            self.scales,
            boxes_xyxy,
            image_idx,
            self.levels(boxes_xyxy)[:, None],
            [side],
            cells,
            torch.zeros_like(cells[:, 0]),
            sampling_ratio=self.sampling_ratio,
        )
        return pooled.view(count, side * side, features[0].shape[1])

    def levels(self, boxes_xyxy: Tensor) -> Tensor:
        """(N,) int64 number of the level that each box is pooled from."""
        sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
        octaves = torch.log2(sides.prod(dim=1).sqrt() / self.finest_side + 1e-6).nan_to_num()
        return octaves.floor().clamp(0, len(self.scales) - 1).long()
