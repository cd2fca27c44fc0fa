"""Input images that golden data describes by a seed."""

import numpy as np
import torch
from torch import Tensor


def noise_image(height: int, width: int, seed: int = 0) -> Tensor:
    """(3, H, W) uint8, every value random."""
    values = np.random.RandomState(seed).randint(0, 256, (height, width, 3))
    return _channels_first(values)


def block_image(height: int, width: int, seed: int, block: int) -> Tensor:
    """(3, H, W) uint8 of square blocks of random colour, cut at the right and the bottom."""
    rows, columns = -(-height // block), -(-width // block)
    colours = np.random.RandomState(seed).randint(0, 256, (rows, columns, 3))
    return _channels_first(colours.repeat(block, 0).repeat(block, 1)[:height, :width])


def _channels_first(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values.astype(np.uint8).transpose(2, 0, 1).copy())
