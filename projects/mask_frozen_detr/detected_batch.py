"""One batch from what a detector found in its images one by one."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from queryseg.deformable_detr import flatten_pyramid, split_pyramid
from queryseg.deformable_detr.pyramid import SpatialShapes
from queryseg.detectors import Detected


def join_images(images: Sequence[Detected]) -> Detected:
    """Put images side by side, their maps padded with zeros to the largest of each level.

    Args:
        images: batches of one image each, without padding, all by the same detector.

    Returns:
        The batch, with padding masks unless all images have the same size.
    """
    first = images[0]
    levels = range(len(first.spatial_shapes))
    shapes = [
        (
            max(image.spatial_shapes[level][0] for image in images),
            max(image.spatial_shapes[level][1] for image in images),
        )
        for level in levels
    ]

    def tokens(of: Callable[[Detected], Tensor]) -> Tensor:
        return torch.cat([_pad_tokens(of(x), x.spatial_shapes, shapes) for x in images])

    def rows(of: Callable[[Detected], Tensor]) -> Tensor:
        return torch.cat([of(image) for image in images])

    batch = replace(
        first,
        stage1=_pad_maps([image.stage1 for image in images]),
        encoder_layers={
            number: tokens(lambda x, number=number: x.encoder_layers[number])
            for number in first.encoder_layers
        },
        spatial_shapes=shapes,
        position=tokens(lambda x: x.position),
        query_feats=rows(lambda x: x.query_feats),
        boxes_cxcywh_norm=rows(lambda x: x.boxes_cxcywh_norm),
        class_probs=rows(lambda x: x.class_probs),
        image_sizes=[size for image in images for size in image.image_sizes],
    )
    if all(list(image.spatial_shapes) == shapes for image in images):
        return batch
    real = tokens(lambda x: torch.ones_like(x.position[..., :1]))[..., 0] > 0
    sizes = real.new_tensor([image.spatial_shapes for image in images], dtype=torch.float32)
    ratios = sizes / sizes.new_tensor(shapes)
    return replace(batch, padding_mask=~real, valid_ratios=ratios.flip(-1))


def _pad_tokens(tokens: Tensor, shapes: SpatialShapes, larger: SpatialShapes) -> Tensor:
    if list(shapes) == list(larger):
        return tokens
    maps = split_pyramid(tokens, shapes)
    return flatten_pyramid([_pad(x, size) for x, size in zip(maps, larger)])[0]


def _pad_maps(maps: Sequence[Tensor]) -> Tensor:
    height = max(x.shape[-2] for x in maps)
    width = max(x.shape[-1] for x in maps)
    return torch.cat([_pad(x, (height, width)) for x in maps])


def _pad(feature: Tensor, size: tuple[int, int]) -> Tensor:
    bottom, right = size[0] - feature.shape[-2], size[1] - feature.shape[-1]
    return F.pad(feature, (0, right, 0, bottom)) if bottom or right else feature
