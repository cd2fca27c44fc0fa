"""Masks of the output image from logits at an eighth of the network's input."""

import torch
import torch.nn.functional as F
from torch import Tensor

from queryseg.projects.soit.upsampling import aligned_upsample

PIXELS_AT_ONCE = 2**24
"""How many output pixels are worked on together; bounds the memory."""
THRESHOLD = 0.5


def output_masks(
    mask_logits: Tensor,
    *,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    resize_twice: bool = False,
    factor: int = 4,
) -> Tensor:
    """Upsample logits, and resize the probabilities to the output, a few masks at a time.

    Pixel centres of the first and the last row and column lie on each other in all sizes, as they
    do in training.

    Args:
        mask_logits: (N, H, W).
        padded_size: height and width of the batch the network saw.
        image_size: height and width of this image in it, at the top left.
        output_size: height and width of the masks.
        resize_twice: the exact way of the release: to the input image and from there to the output.
            It also stretches the padding over the image, if there is any.
        factor: of the upsampling.

    Returns:
        (N, *output_size) bool.
    """
    pixels = max(output_size[0] * output_size[1], image_size[0] * image_size[1])
    parts = []
    for logits in mask_logits.split(max(PIXELS_AT_ONCE // pixels, 1)):
        probs = aligned_upsample(logits, factor).sigmoid()
        if resize_twice:
            probs = _resize(_resize(probs, image_size), output_size)
        elif tuple(padded_size) == tuple(image_size):
            probs = _resize(probs, output_size)
        else:
            probs = _resize_part(probs, padded_size, image_size, output_size)
        parts.append(probs > THRESHOLD)
    return torch.cat(parts)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=True)[0]


def _resize_part(
    maps: Tensor,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
) -> Tensor:
    """Resize the part of the maps that shows the image."""
    ends = [
        2 * (image - 1) / max(padded - 1, 1) - 1 for image, padded in zip(image_size, padded_size)
    ]
    y, x = (
        torch.linspace(-1, end, length, device=maps.device, dtype=maps.dtype)
        for end, length in zip(ends, output_size)
    )
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    return F.grid_sample(maps[None], grid[None], align_corners=True)[0]
