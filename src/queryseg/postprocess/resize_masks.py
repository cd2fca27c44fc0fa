"""Mask logits from the feature map's grid to the output image."""

import torch.nn.functional as F
from torch import Tensor


def resize_masks(
    mask_logits: Tensor,
    *,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
) -> Tensor:
    """Bilinear to the padded network input, cut to the image, bilinear to the output.

    Args:
        mask_logits: (N, h, w).
        padded_size: (H, W) of the batch the network saw.
        image_size: size of this image in it, at the top left.
        output_size: size of the original image.

    Returns:
        (N, *output_size).
    """
    masks = F.interpolate(mask_logits[None], padded_size, mode="bilinear", align_corners=False)
    masks = masks[..., : image_size[0], : image_size[1]]
    if tuple(image_size) != tuple(output_size):
        masks = F.interpolate(masks, output_size, mode="bilinear", align_corners=False)
    return masks[0]
