"""Images of different sizes in one padded batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch


class ImageList:
    """A batch of images, padded at the right and at the bottom to a common size.

    Attributes:
        tensor: (B, H, W) or (B, C, ..., H, W).
        image_sizes: the (height, width) of each image before padding.
    """

    def __init__(self, tensor: torch.Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> torch.Tensor:
        """Image `idx` without its padding."""
        height, width = self.image_sizes[idx][:2]
        return self.tensor[idx, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> "ImageList":
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @staticmethod
    def from_tensors(
        tensors: Sequence[torch.Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
    ) -> "ImageList":
        """Stack images that differ in height and width only.

        Args:
            tensors: images of shape (H, W) or (C, ..., H, W), equal in all other dimensions.
            size_divisibility: if above 1, the common size is rounded up to a multiple of it.
            pad_value: value of the added pixels.
            padding_constraints: what a backbone asks for: "square_size" (> 0) fixes both sides
                before rounding, "size_divisibility" takes the place of the argument.
        """
        assert isinstance(tensors, list | tuple) and len(tensors) > 0
        leading = tensors[0].shape[:-2]
        assert all(image.shape[:-2] == leading for image in tensors), "images differ in channels"

        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in tensors]
        height, width = (max(sides) for sides in zip(*sizes, strict=True))
        constraints = padding_constraints or {}
        if constraints.get("square_size", 0) > 0:
            height = width = constraints["square_size"]
        divisor = max(constraints.get("size_divisibility", size_divisibility), 1)
        height, width = (-(-side // divisor) * divisor for side in (height, width))

        batch = tensors[0].new_full((len(tensors), *leading, height, width), pad_value)
        for index, (image, (image_height, image_width)) in enumerate(zip(tensors, sizes)):
            batch[index, ..., :image_height, :image_width].copy_(image)
        return ImageList(batch, sizes)
