"""Images with rectangles for detectors and what is built on them."""

from typing import Any

import torch
from detectron2.structures import BitMasks, Instances


def image_input(height: int, width: int, count: int = 2, seed: int = 0) -> dict[str, Any]:
    """A noise image with `count` rectangles of random place and class (of six)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> int:
        return int(torch.randint(0, high, (), generator=generator))

    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask in masks:
        y, x = draw(height // 2), draw(width // 2)
        mask[y : y + height // 3, x : x + width // 3] = True
    instances = Instances(
        (height, width),
        gt_boxes=BitMasks(masks).get_bounding_boxes(),
        gt_classes=torch.tensor([draw(6) for _ in range(count)], dtype=torch.int64),
        gt_masks=BitMasks(masks),
    )
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": image, "height": height, "width": width, "instances": instances}
