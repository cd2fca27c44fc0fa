"""A feature pyramid as tokens that know where they are and what is padding."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from queryseg.deformable_detr.pyramid import flatten_pyramid
from queryseg.layers import sine_position_encoding


@dataclass(frozen=True)
class TokenPyramid:
    """What encoder and decoder read from.

    Args:
        tokens: (B, S, C), level after level, row by row.
        position: (B, S, C) position and level, added to queries.
        spatial_shapes: (H, W) of each level.
        valid_sizes: (B, L, 2) int64, rows and columns of each level that are no padding; they start
            at the top left.
        padding_mask: (B, S) bool, True on padding; None where no image has any.
    """

    tokens: Tensor
    position: Tensor
    spatial_shapes: list[tuple[int, int]]
    valid_sizes: Tensor
    padding_mask: Tensor | None

    @property
    def valid_ratios(self) -> Tensor:
        """(B, L, 2) share of the width and of the height of each level that is no padding."""
        sizes = torch.tensor(self.spatial_shapes, device=self.valid_sizes.device)
        return (self.valid_sizes / sizes).flip(-1)

    def with_tokens(self, tokens: Tensor) -> "TokenPyramid":
        """The same pyramid with other tokens (B, S, C)."""
        return replace(self, tokens=tokens)

    def level(self, index: int) -> "TokenPyramid":
        """One level as a pyramid of its own."""
        lengths = [height * width for height, width in self.spatial_shapes]
        start = sum(lengths[:index])
        part = slice(start, start + lengths[index])
        mask = self.padding_mask
        return TokenPyramid(
            tokens=self.tokens[:, part],
            position=self.position[:, part],
            spatial_shapes=[self.spatial_shapes[index]],
            valid_sizes=self.valid_sizes[:, index : index + 1],
            padding_mask=None if mask is None else mask[:, part],
        )


class PyramidTokens(nn.Module):
    """Tokens of a pyramid with sinusoidal positions and a learned embedding of each level.

    Args:
        embed_dim: C.
        num_levels: L.
        temperature: of the sines; DINO takes 20.
        offset: added to the row and column numbers, which count from one; DINO takes 0.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_levels: int = 4,
        temperature: float = 10000.0,
        offset: float = -0.5,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.temperature = temperature
        self.offset = offset
        self.level_embed = nn.Parameter(torch.randn(num_levels, embed_dim))

    def forward(
        self,
        maps: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        padded_size: tuple[int, int],
    ) -> TokenPyramid:
        """Flatten the maps of a batch.

        Args:
            maps: (B, C, h, w) of each level.
            image_sizes: height and width of each image before padding.
            padded_size: height and width of the batch.
        """
        tokens, shapes = flatten_pyramid(maps)
        valid = valid_level_sizes(image_sizes, padded_size, shapes, tokens.device)
        masks = [_padding(shape, valid[:, level]) for level, shape in enumerate(shapes)]
        position = torch.cat(
            [
                self.encode(mask).flatten(2).mT + embed
                for mask, embed in zip(masks, self.level_embed)
            ],
            dim=1,
        )
        padded = any(tuple(size) != tuple(padded_size) for size in image_sizes)
        joined = torch.cat([mask.flatten(1) for mask in masks], dim=1) if padded else None
        return TokenPyramid(tokens, position, shapes, valid, joined)

    def encode(self, padding_mask: Tensor) -> Tensor:
        """(B, C, H, W) position of each pixel of a level, from (B, H, W) bool."""
        return sine_position_encoding(
            padding_mask,
            embed_dim=self.embed_dim,
            temperature=self.temperature,
            offset=self.offset,
        )


def valid_level_sizes(
    image_sizes: Sequence[tuple[int, int]],
    padded_size: tuple[int, int],
    spatial_shapes: Sequence[tuple[int, int]],
    device: torch.device,
) -> Tensor:
    """How many rows and columns of each level show the image: its mask resized to the nearest.

    Args:
        image_sizes: height and width of each image before padding.
        padded_size: height and width of the batch.
        spatial_shapes: (H, W) of each level.
        device: of the result.

    Returns:
        (B, L, 2) int64, at least one.
    """
    counts = []
    for axis, length in enumerate(padded_size):
        inside = torch.arange(length) < torch.tensor([[size[axis]] for size in image_sizes])
        rows = inside.float()[:, None]
        per_level = [F.interpolate(rows, shape[axis], mode="nearest") for shape in spatial_shapes]
        counts.append(torch.stack([level[:, 0].sum(1) for level in per_level], dim=1))
    return torch.stack(counts, dim=-1).long().to(device)


def _padding(shape: tuple[int, int], valid: Tensor) -> Tensor:
    """(B, H, W) bool, True outside the (B, 2) valid rows and columns."""
    rows, columns = (torch.arange(side, device=valid.device) for side in shape)
    return (rows[:, None] >= valid[:, :1, None]) | (columns >= valid[:, 1:, None])
