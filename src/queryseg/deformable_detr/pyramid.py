"""Feature pyramids as one sequence of tokens, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

SpatialShapes = Sequence[tuple[int, int]]
"""(H, W) of each level."""


def flatten_pyramid(maps: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Join maps of several sizes into tokens, level after level, row by row.

    Args:
        maps: (B, C, H_l, W_l).

    Returns:
        (B, S, C) with S = sum of H_l * W_l, and the sizes.
    """
    shapes = [(feature.shape[-2], feature.shape[-1]) for feature in maps]
    return torch.cat([feature.flatten(2).mT for feature in maps], dim=1), shapes


def split_pyramid(tokens: Tensor, spatial_shapes: SpatialShapes) -> list[Tensor]:
    """Tokens (B, S, C) back to maps (B, C, H_l, W_l)."""
    parts = tokens.split([height * width for height, width in spatial_shapes], dim=1)
    return [part.mT.unflatten(2, size) for part, size in zip(parts, spatial_shapes)]


def cell_centres(
    spatial_shapes: SpatialShapes, valid_ratios: Tensor | None = None, *, like: Tensor
) -> Tensor:
    """Where each token of a pyramid lies, as seen from every level.

    Args:
        spatial_shapes: (H, W) of each level.
        valid_ratios: (B, L, 2) share of the width and height of each level that is no padding;
            all of it if None.
        like: a tensor (B, ...) on the device to use.

    Returns:
        (B, S, L, 2) float32 x, y in [0, 1] of the padded image.
    """
    device, batch, levels = like.device, len(like), len(spatial_shapes)
    if valid_ratios is None:
        valid_ratios = torch.ones(batch, levels, 2, device=device)
    centres = []
    for level, (height, width) in enumerate(spatial_shapes):
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1)
        centres.append(grid / valid_ratios[:, None, level])
    return torch.cat(centres, dim=1)[:, :, None] * valid_ratios[:, None]
