"""Mask logits from the stride of the map to twice the stride of the image."""

import torch.nn.functional as F
from torch import Tensor


def aligned_upsample(maps: Tensor, factor: int = 4) -> Tensor:
    """Bilinear upsampling in which output i reads the input at (i - factor / 2) / factor.

    So the first and the last input keep their place, unlike with either `align_corners` of torch:
    the release trains and tests with this.

    Args:
        maps: (N, H, W).
        factor: how many times larger, even.

    Returns:
        (N, factor * H, factor * W).

    >>> import torch
    >>> aligned_upsample(torch.tensor([[[0.0, 4.0]]]))[0, 0]
    tensor([0., 0., 0., 1., 2., 3., 4., 4.])
    """
    height, width = (factor * side for side in maps.shape[-2:])
    padded = F.pad(maps[None], (1, 1, 1, 1), mode="replicate")
    size = (height + factor + 1, width + factor + 1)
    large = F.interpolate(padded, size, mode="bilinear", align_corners=True)[0]
    first = factor // 2
    return large[:, first : first + height, first : first + width]
