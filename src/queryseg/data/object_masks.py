"""Ground-truth masks of sampled boxes, without a copy of the mask for each box."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, PolygonMasks
from detectron2.structures.masks import rasterize_polygons_within_box
from torch import Tensor
from torchvision.ops import roi_align

Polygons = list[np.ndarray]


class ObjectMasks:
    """N references to the bitmaps, and where there are any the polygons, of M objects.

    Indexing selects references: the 512 sampled boxes of an image share the bitmaps of its objects.
    Detectron2's `BitMasks` would copy a full-size bitmap for each of them.

    Attributes:
        bitmaps: (M, H, W) bool.
        polygons: of each object, or None where it is known as pixels only.
        index: (N,) int64, the object of each reference.
    """

    def __init__(
        self,
        bitmaps: Tensor,
        polygons: Sequence[Polygons | None] | None = None,
        index: Tensor | None = None,
    ) -> None:
        if bitmaps.dim() != 3 or bitmaps.dtype != torch.bool:
            raise ValueError(
                f"bitmaps must be bool (M, H, W), got {tuple(bitmaps.shape)} {bitmaps.dtype}"
            )
        self.bitmaps = bitmaps
        self.polygons = tuple(polygons) if polygons is not None else (None,) * len(bitmaps)
        self.index = torch.arange(len(bitmaps), device=bitmaps.device) if index is None else index

    @classmethod
    def of(cls, masks: Any, image_size: tuple[int, int]) -> "ObjectMasks":
        """Take over Detectron2's masks of an image.

        Args:
            masks: `BitMasks`, `PolygonMasks` or `ObjectMasks`.
            image_size: (H, W); polygons are drawn on it.

        Raises:
            ValueError: masks of another kind.
        """
        if isinstance(masks, ObjectMasks):
            return masks
        if isinstance(masks, BitMasks):
            return cls(masks.tensor)
        if isinstance(masks, PolygonMasks):
            drawn = BitMasks.from_polygon_masks(masks, *image_size)
            return cls(drawn.tensor, list(masks.polygons))
        raise ValueError(f"gt_masks must be bitmaps or polygons, got {type(masks).__name__}")

    @property
    def tensor(self) -> Tensor:
        """(N, H, W) bool: a copy for each reference."""
        return self.bitmaps[self.index]

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = self.bitmaps.shape[1:]
        return height, width

    @property
    def device(self) -> torch.device:
        return self.bitmaps.device

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int | slice | Tensor) -> "ObjectMasks":
        """Select references; one integer gives a list of length 1."""
        if isinstance(item, int):
            item = slice(item, item + 1)
        if isinstance(item, Tensor):
            item = item.to(self.index.device)
        return ObjectMasks(self.bitmaps, self.polygons, self.index[item])

    def to(self, *args: Any, **kwargs: Any) -> "ObjectMasks":
        """Move the bitmaps; polygons stay on the host."""
        bitmaps = self.bitmaps.to(*args, **kwargs)
        return ObjectMasks(bitmaps, self.polygons, self.index.to(bitmaps.device))

    def nonempty(self) -> Tensor:
        """(N,) bool: masks with a pixel."""
        return self.bitmaps.flatten(1).any(1)[self.index]

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes around the bitmaps."""
        return BitMasks(self.tensor).get_bounding_boxes()

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Masks inside boxes on a fixed grid, as Detectron2 makes them.

        Polygons are drawn on the grid; of bitmaps, cells count that are covered by half (RoIAlign).

        Args:
            boxes: (N, 4) xyxy, one for each reference.
            mask_size: rows (= columns) of the grid.

        Returns:
            (N, mask_size, mask_size) bool, on the device of the boxes.
        """
        if all(polygons is None for polygons in self.polygons):
            return self._crop_bitmaps(boxes, mask_size)
        numbers = self.index.tolist()
        drawn = [self.polygons[number] is not None for number in numbers]
        cropped = torch.empty(len(numbers), mask_size, mask_size, dtype=torch.bool)
        for place, (number, box) in enumerate(zip(numbers, boxes.detach().cpu().numpy())):
            polygons = self.polygons[number]
            if polygons is not None:
                cropped[place] = rasterize_polygons_within_box(polygons, box, mask_size)
        cropped = cropped.to(boxes.device)
        if not all(drawn):
            rest = torch.tensor([not one for one in drawn], device=boxes.device)
            cropped[rest] = self[rest]._crop_bitmaps(boxes[rest], mask_size)
        return cropped

    def _crop_bitmaps(self, boxes: Tensor, mask_size: int) -> Tensor:
        rois = torch.cat([self.index.to(boxes).unsqueeze(1), boxes], 1)
        covered = roi_align(self.bitmaps.unsqueeze(1).to(boxes), rois, mask_size, aligned=True)
        return covered.squeeze(1) >= 0.5
