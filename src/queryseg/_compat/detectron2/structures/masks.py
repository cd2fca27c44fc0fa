"""Masks of the objects of one image: as bitmaps, as polygons, or as small masks within boxes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import torch
from torchvision.ops import roi_align

from .boxes import Boxes

MIN_CROP_SIDE = 0.1  # pixels: a thinner box is taken for this wide when polygons are scaled to it


def polygon_area(x: np.ndarray, y: np.ndarray) -> float:
    """Area of one polygon from its x and y coordinates, by the shoelace formula."""
    return 0.5 * np.abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))


def polygons_to_bitmask(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Fill polygons (each x0, y0, x1, y1, ...) as pycocotools does: bool (height, width)."""
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    parts = coco_mask.frPyObjects(polygons, height, width)
    return coco_mask.decode(coco_mask.merge(parts)).astype(bool)


def rasterize_polygons_within_box(
    polygons: list[np.ndarray], box: np.ndarray, mask_size: int
) -> torch.Tensor:
    """Fill polygons on a grid of (mask_size, mask_size) cells laid over a box.

    Args:
        polygons: the parts of one object, in image coordinates.
        box: x0, y0, x1, y1.
        mask_size: cells on each side.

    Returns:
        bool (mask_size, mask_size).
    """
    sides = (max(box[2] - box[0], MIN_CROP_SIDE), max(box[3] - box[1], MIN_CROP_SIDE))
    scale = np.array([mask_size / side for side in sides])
    moved = [((part.reshape(-1, 2) - box[:2]) * scale).ravel() for part in polygons]
    return torch.from_numpy(polygons_to_bitmask(moved, mask_size, mask_size))


class BitMasks:
    """Masks as one bool tensor of shape (N, H, W).

    Attributes:
        tensor: the (N, H, W) bool tensor.
        image_size: (H, W).
    """

    def __init__(self, tensor: torch.Tensor | np.ndarray) -> None:
        device = tensor.device if isinstance(tensor, torch.Tensor) else torch.device("cpu")
        masks = torch.as_tensor(tensor, dtype=torch.bool, device=device)
        assert masks.dim() == 3, f"bitmaps need (N, H, W), not {masks.shape}"
        self.image_size = masks.shape[1:]
        self.tensor = masks

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.tensor)

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)})"

    def __getitem__(self, item: int | slice | torch.Tensor) -> "BitMasks":
        """Select masks; one integer gives a `BitMasks` of length 1."""
        chosen = self.tensor[item][None] if isinstance(item, int) else self.tensor[item]
        assert chosen.dim() == 3, f"indexing bitmaps with {item} gives shape {chosen.shape}"
        return BitMasks(chosen)

    def to(self, *args: Any, **kwargs: Any) -> "BitMasks":
        return BitMasks(self.tensor.to(*args, **kwargs))

    def nonempty(self) -> torch.Tensor:
        """True for masks with at least one pixel, shape (N,)."""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: "PolygonMasks | list[list[np.ndarray]]", height: int, width: int
    ) -> "BitMasks":
        """Fill the polygons of each object on an image of (height, width)."""
        bitmaps = [polygons_to_bitmask(polygons, height, width) for polygons in polygon_masks]
        return BitMasks(np.stack(bitmaps) if bitmaps else np.zeros((0, height, width), dtype=bool))

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Training targets of Mask R-CNN: each mask inside its box, on a fixed grid.

        Args:
            boxes: (N, 4), x0, y0, x1, y1, one for each mask.
            mask_size: cells on each side.

        Returns:
            bool (N, mask_size, mask_size): cells of which at least half is covered (ROIAlign).
        """
        assert len(boxes) == len(self), f"{len(boxes)} boxes for {len(self)} masks"
        index = torch.arange(len(boxes), device=boxes.device).to(boxes.dtype)
        rois = torch.cat((index[:, None], boxes), dim=1).to(self.device)
        bitmaps = self.tensor[:, None].to(torch.float32)
        covered = roi_align(bitmaps, rois.to(bitmaps.dtype), (mask_size, mask_size), aligned=True)
        return covered.squeeze(1) >= 0.5

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes around the masks, on the CPU; the far side is the last pixel + 1.

        An empty mask has a box of zeros.
        """
        masks = self.tensor.cpu()
        starts, ends = [], []
        for occupied in (masks.any(dim=1), masks.any(dim=2)):
            position = torch.arange(occupied.shape[1], dtype=torch.float32)
            starts.append(position.where(occupied, torch.inf).amin(dim=1))
            ends.append((position + 1).where(occupied, -torch.inf).amax(dim=1))
        boxes = torch.stack((*starts, *ends), dim=1)
        return Boxes(boxes.where(boxes.isfinite(), 0.0))

    @staticmethod
    def cat(bitmasks_list: Sequence["BitMasks"]) -> "BitMasks":
        """Join the masks of the same image, in order."""
        assert isinstance(bitmasks_list, list | tuple) and len(bitmasks_list) > 0
        assert all(isinstance(bitmasks, BitMasks) for bitmasks in bitmasks_list)
        return type(bitmasks_list[0])(torch.cat([masks.tensor for masks in bitmasks_list], dim=0))


class PolygonMasks:
    """Masks as polygons: a list for each object, of its parts x0, y0, x1, y1, ... (float64).

    Always on the CPU: `to` does nothing.

    Attributes:
        polygons: objects, their parts, the coordinates of a part.

    Raises:
        ValueError: not a list of lists, or a part with an odd count or less than 6 coordinates.
    """

    def __init__(self, polygons: list[list[torch.Tensor | np.ndarray | Sequence[float]]]) -> None:
        if not isinstance(polygons, list):
            raise ValueError(f"Polygons come as a list of lists of parts, not {type(polygons)}.")
        self.polygons = [_as_parts(parts) for parts in polygons]

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, *args: Any, **kwargs: Any) -> "PolygonMasks":
        return self

    def __len__(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"

    def __getitem__(self, item: int | slice | list[int] | torch.Tensor) -> "PolygonMasks":
        """Select objects; one integer gives a `PolygonMasks` of length 1.

        Raises:
            ValueError: a tensor that is neither bool nor int32 nor int64.
        """
        if isinstance(item, slice):
            return PolygonMasks(self.polygons[item])
        if isinstance(item, torch.Tensor):
            item = _indices(item)
        chosen = [item] if isinstance(item, int) else item
        return PolygonMasks([self.polygons[index] for index in chosen])

    def nonempty(self) -> torch.Tensor:
        """True for objects with at least one part, shape (N,)."""
        return torch.tensor([len(parts) > 0 for parts in self.polygons], dtype=torch.bool)

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes around the polygons; the far side is never below 0."""
        boxes = torch.zeros(len(self), 4)
        for box, parts in zip(boxes, self.polygons, strict=True):
            corners = np.concatenate([np.empty(0), *parts]).reshape(-1, 2).astype(np.float32)
            box[:2] = torch.from_numpy(corners.min(axis=0, initial=np.inf))
            box[2:] = torch.from_numpy(corners.max(axis=0, initial=0.0))
        return Boxes(boxes)

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Training targets of Mask R-CNN: each object inside its box, on a fixed grid.

        Args:
            boxes: (N, 4), x0, y0, x1, y1, one for each object.
            mask_size: cells on each side.

        Returns:
            bool (N, mask_size, mask_size) on the device of the boxes.
        """
        assert len(boxes) == len(self), f"{len(boxes)} boxes for {len(self)} objects"
        targets = [
            rasterize_polygons_within_box(parts, box, mask_size)
            for parts, box in zip(self.polygons, boxes.cpu().numpy(), strict=True)
        ]
        if not targets:
            return torch.empty(0, mask_size, mask_size, dtype=torch.bool, device=boxes.device)
        return torch.stack(targets).to(boxes.device)

    def area(self) -> torch.Tensor:
        """Sum of the areas of each object's parts, float64 (N,); overlaps count twice."""
        areas = [sum(polygon_area(p[0::2], p[1::2]) for p in parts) for parts in self.polygons]
        return torch.tensor(areas, dtype=torch.float64)

    @staticmethod
    def cat(polymasks_list: Sequence["PolygonMasks"]) -> "PolygonMasks":
        """Join the objects of the same image, in order."""
        assert isinstance(polymasks_list, list | tuple) and len(polymasks_list) > 0
        assert all(isinstance(masks, PolygonMasks) for masks in polymasks_list)
        joined = [parts for masks in polymasks_list for parts in masks.polygons]
        return type(polymasks_list[0])(joined)


def _as_parts(parts: list[torch.Tensor | np.ndarray | Sequence[float]]) -> list[np.ndarray]:
    if not isinstance(parts, list):
        raise ValueError(f"The polygons of one object come as a list of parts, not {type(parts)}.")
    arrays = [
        np.array(part.cpu().numpy() if isinstance(part, torch.Tensor) else part, dtype=np.float64)
        for part in parts
    ]
    for array in arrays:
        if len(array) % 2 != 0 or len(array) < 6:
            raise ValueError(
                f"A polygon cannot have {len(array)} coordinates: it needs an even count >= 6."
            )
    return arrays


def _indices(item: torch.Tensor) -> list[int]:
    if item.dtype == torch.bool:
        assert item.dim() == 1, f"a mask over objects has one dimension, not {item.dim()}"
        return item.nonzero().squeeze(1).tolist()
    if item.dtype in (torch.int32, torch.int64):
        return item.tolist()
    raise ValueError(f"Index objects with a bool, int32 or int64 tensor, not {item.dtype}.")


class ROIMasks:
    """Small masks, each defined inside its own box.

    Attributes:
        tensor: (N, M, M) mask values.

    Raises:
        ValueError: the tensor has not 3 dimensions.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        if tensor.dim() != 3:
            raise ValueError(f"Masks within boxes need (N, M, M), not {tuple(tensor.shape)}.")
        self.tensor = tensor

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to(self, device: torch.device | str) -> "ROIMasks":
        return ROIMasks(self.tensor.to(device))

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __getitem__(self, item: slice | torch.Tensor) -> "ROIMasks":
        return ROIMasks(self.tensor[item])

    def __repr__(self) -> str:
        return f"ROIMasks(num_instances={len(self)})"

    def to_bitmasks(
        self, boxes: Boxes, height: int, width: int, threshold: float = 0.5
    ) -> BitMasks:
        """Paste the masks into their boxes on an image of (height, width)."""
        from detectron2.layers.mask_ops import paste_masks_in_image
        from detectron2.utils.memory import retry_if_cuda_oom

        paste = retry_if_cuda_oom(paste_masks_in_image)
        return BitMasks(paste(self.tensor, boxes.tensor, (height, width), threshold=threshold))
