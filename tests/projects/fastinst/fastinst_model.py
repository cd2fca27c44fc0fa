"""A small FastInst and inputs for it."""

from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances

from queryseg.engine import apply_overrides, load_config
from queryseg.projects.fastinst.model import FastInst


def small_model(*overrides: str, config: str = "fastinst/fastinst_tiny.py") -> FastInst:
    """The tiny config with few points; `overrides` as on the command line."""
    few_points = "model.criterion.point_sampler.num_points=64"
    cfg = apply_overrides(load_config(config), [few_points, *overrides])
    torch.manual_seed(0)
    return instantiate(cfg.model)


def image_input(
    height: int, width: int, num_instances: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """A noise image, with rectangles as instances if a number is given."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    inputs: dict[str, Any] = {"image": image, "height": height, "width": width}
    if num_instances is not None:
        masks = torch.zeros(num_instances, height, width, dtype=torch.bool)
        for mask in masks:
            y, x = (
                int(torch.randint(0, side // 2, (), generator=generator)) for side in mask.shape
            )
            mask[y : y + height // 3, x : x + width // 3] = True
        labels = torch.randint(0, 6, (num_instances,), generator=generator)
        inputs["instances"] = Instances(
            (height, width),
            gt_boxes=Boxes(torch.zeros(num_instances, 4)),
            gt_classes=labels,
            gt_masks=BitMasks(masks),
        )
    return inputs
