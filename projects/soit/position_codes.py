"""Position codes that the mask map of each instance is read with (section 3.3, equation 4)."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from queryseg.layers import sine_code

PositionKind = Literal["relative", "absolute", "none"]
POSITION_KINDS = get_args(PositionKind)
EPS = 1e-6
"""Keeps the division by the number of rows finite."""


def position_codes(
    centres: Tensor,
    valid_sizes: Tensor,
    map_size: tuple[int, int],
    *,
    channels: int,
    kind: PositionKind = "relative",
) -> tuple[Tensor, Tensor]:
    """Sines and cosines of the distance between a box centre and each row and column.

    Rows and columns are counted from one, as shares of the valid part, times 2 pi; so a pixel lies
    half a pixel below and to the right of where the boxes have it, as in the release. On padding
    the count of rows stands still, but is zero in padded columns (and the other way round): that is
    the last entry.

    Args:
        centres: (N, 2) as x, y in [0, 1] of the valid part.
        valid_sizes: (N, 2) int64, valid rows and columns of each instance's map.
        map_size: (H, W).
        channels: C, a multiple of 4.
        kind: "relative" to the centre; "absolute", with (0, 0) as everybody's centre; or "none",
            all zero (Table 4).

    Returns:
        (N, H + 1, C / 2) of the rows and (N, W + 1, C / 2) of the columns, at least float32.
    """
    centres = centres.detach().to(torch.promote_types(centres.dtype, torch.float32))
    if kind == "none":
        height, width = map_size
        rows = centres.new_zeros(len(centres), height + 1, channels // 2)
        return rows, centres.new_zeros(len(centres), width + 1, channels // 2)
    if kind == "absolute":
        centres = torch.zeros_like(centres)
    y, x = (
        _distances(centres[:, 1 - axis], valid_sizes[:, axis], map_size[axis]) for axis in (0, 1)
    )
    return sine_code(y, dim=channels // 2), sine_code(x, dim=channels // 2)


def _distances(centres: Tensor, counts: Tensor, length: int) -> Tensor:
    """(N, length + 1) distances along one axis, in turns of 2 pi."""
    places = torch.arange(1, length + 1, device=centres.device)
    shares = torch.minimum(places, counts[:, None]) / (counts[:, None] + EPS)
    shares = torch.cat((shares, torch.zeros_like(shares[:, :1])), dim=1).to(centres.dtype)
    return (shares - centres[:, None]) * (2 * math.pi)
