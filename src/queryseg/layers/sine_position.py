"""Sinusoidal codes of numbers, and of the pixels of a (padded) feature map."""

import math

import torch
from torch import Tensor


def sine_code(values: Tensor, *, dim: int, temperature: float = 10000.0) -> Tensor:
    """Sines (even channels) and cosines (odd) of numbers at `dim` / 2 frequencies.

    Args:
        values: (...) float, in radians of the highest frequency.
        dim: channels of one number, even.
        temperature: ratio between the longest and the shortest wave length, nearly.

    Returns:
        (..., dim).

    >>> sine_code(torch.tensor([math.pi / 2]), dim=2).round(decimals=3) + 0.0
    tensor([[1., 0.]])
    """
    exponents = torch.arange(0, dim, 2, device=values.device, dtype=values.dtype) / dim
    # Divided as DETR does: on padding, values of millions make each rounding a new angle.
    wave = values[..., None] / temperature**exponents
    return torch.stack((wave.sin(), wave.cos()), dim=-1).flatten(-2)


def sine_position_encoding(
    padding_mask: Tensor,
    *,
    embed_dim: int,
    temperature: float = 10000.0,
    offset: float = 0.0,
    eps: float = 1e-6,
) -> Tensor:
    """Sines and cosines of each pixel's row and column, counted in the unpadded part.

    The two-dimensional form of DETR: rows and columns are counted from one, divided by the number
    of real rows and columns, times 2 pi. The first half of the channels tells the row, the second
    the column; within a half, sines (even channels) and cosines (odd) of one frequency alternate.

    Args:
        padding_mask: (B, H, W) bool, True on padding.
        embed_dim: C, a multiple of 4.
        temperature: ratio between the longest and the shortest wave length.
        offset: added to the counts before the division (-0.5 gives pixel centres).
        eps: keeps the division finite.

    Returns:
        (B, C, H, W) float32.

    Raises:
        ValueError: `embed_dim` is not a multiple of 4.

    >>> mask = torch.zeros(1, 2, 3, dtype=torch.bool)
    >>> sine_position_encoding(mask, embed_dim=4)[0, 1].mean(dim=1).round(decimals=3) + 0.0
    tensor([-1.,  1.])
    """
    if embed_dim % 4:
        raise ValueError(f"embed_dim {embed_dim} is not a multiple of 4")
    real = (~padding_mask).float()
    rows, columns = real.cumsum(1), real.cumsum(2)
    rows = (rows + offset) / (rows[:, -1:, :] + eps) * (2 * math.pi)
    columns = (columns + offset) / (columns[:, :, -1:] + eps) * (2 * math.pi)
    halves = [
        sine_code(axis, dim=embed_dim // 2, temperature=temperature) for axis in (rows, columns)
    ]
    return torch.cat(halves, dim=-1).permute(0, 3, 1, 2)
