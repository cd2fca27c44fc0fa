"""Ground truth of the boxes that a training step looks at."""

from collections.abc import Sequence

import torch
from detectron2.structures import Instances
from torch import Tensor
from torch.nn import functional as F

from queryseg.data.object_masks import ObjectMasks
from queryseg.mask_refinement.incoherent_targets import lossy_cells, lossy_pixels

IMAGE_SIZE = tuple[int, int]


class BoxTargets:
    """Masks of N boxes of B images.

    Args:
        instances: of each image, with `proposal_boxes`, and `gt_masks` where it has boxes.
        device: of the results.
    """

    def __init__(self, instances: Sequence[Instances], device: torch.device) -> None:
        self.device = device
        self._masks: list[ObjectMasks | None] = []
        self._boxes: list[Tensor] = []
        for image in instances:
            self._boxes.append(image.proposal_boxes.tensor.detach())
            masks = ObjectMasks.of(image.gt_masks, image.image_size) if len(image) else None
            self._masks.append(masks)

    def __len__(self) -> int:
        return sum(len(boxes) for boxes in self._boxes)

    def cropped(self, size: int, chosen: Tensor | None = None) -> Tensor:
        """Masks inside their boxes.

        Args:
            size: rows of the grid.
            chosen: (n,) ascending numbers of the boxes that are asked for; by default all.

        Returns:
            (n, 1, size, size) bool.
        """
        parts = [torch.zeros(0, size, size, dtype=torch.bool, device=self.device)]
        first = 0
        for masks, boxes in zip(self._masks, self._boxes):
            last = first + len(boxes)
            if masks is not None:
                own: slice | Tensor = slice(None)
                if chosen is not None:
                    own = chosen[(chosen >= first) & (chosen < last)] - first
                parts.append(masks[own].crop_and_resize(boxes[own], size).to(self.device))
            first = last
        return torch.cat(parts).unsqueeze(1)

    def lossy_cells(self, size: int, threshold: float, *, signed: bool = False) -> Tensor:
        """The incoherent cells of the release, (N, 1, size, size) bool."""
        parts = [torch.zeros(0, 1, size, size, dtype=torch.bool, device=self.device)]
        for masks, boxes in zip(self._masks, self._boxes):
            if masks is not None:
                used, place = masks.index.unique(return_inverse=True)
                lossy = lossy_pixels(masks.bitmaps[used], signed=signed).to(self.device)
                parts.append(lossy_cells(lossy, boxes, place, size, threshold))
        return torch.cat(parts)

    def foreground(self, map_size: IMAGE_SIZE, padded_size: IMAGE_SIZE | None = None) -> Tensor:
        """The objects of the boxes, on the finest feature map.

        Args:
            map_size: rows and columns of the map of the padded images.
            padded_size: of the images. Without it the image is stretched over the whole map, also
                where that holds padding, as in the release.

        Returns:
            (B, 1, *map_size) float32 of zeros and ones.
        """
        maps = []
        for masks in self._masks:
            if masks is None:
                maps.append(torch.zeros(1, *map_size, device=self.device))
                continue
            union = masks.bitmaps[masks.index.unique()].any(0).float().to(self.device)
            if padded_size is not None:
                missing = [whole - real for whole, real in zip(padded_size, union.shape)]
                union = F.pad(union, (0, missing[1], 0, missing[0]))
            maps.append(F.interpolate(union[None, None], map_size, mode="nearest")[0])
        return torch.stack(maps)
