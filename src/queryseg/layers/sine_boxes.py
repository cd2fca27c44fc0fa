"""Sinusoidal encoding of boxes or points."""

import math

import torch
from torch import Tensor

from queryseg.layers.sine_position import sine_code


def sine_box_encoding(
    boxes_norm: Tensor, *, embed_dim: int = 512, temperature: float = 10000.0
) -> Tensor:
    """Sines and cosines of each coordinate times 2 pi, one group of channels after the other.

    Within a group, sines (even channels) and cosines (odd) of one frequency alternate. The order of
    the groups is that of the coordinates.

    Args:
        boxes_norm: (..., n) coordinates in [0, 1].
        embed_dim: channels of all groups, a multiple of 2n.
        temperature: ratio between the longest and the shortest wave length.

    Returns:
        (..., embed_dim) in at least float32.

    Raises:
        ValueError: `embed_dim` is not a multiple of twice the number of coordinates.

    >>> sine_box_encoding(torch.tensor([0.25, 0.5]), embed_dim=4).round(decimals=3) + 0.0
    tensor([ 1.,  0.,  0., -1.])
    """
    count = boxes_norm.shape[-1]
    if embed_dim % (2 * count):
        raise ValueError(f"embed_dim {embed_dim} is not a multiple of {2 * count}")
    if boxes_norm.dtype in (torch.float16, torch.bfloat16):
        boxes_norm = boxes_norm.float()
    code = sine_code(boxes_norm * (2 * math.pi), dim=embed_dim // count, temperature=temperature)
    return code.flatten(-2)
