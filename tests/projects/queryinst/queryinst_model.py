"""A small QueryInst and inputs for it."""

from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Instances

from queryseg.engine import apply_overrides, load_config
from queryseg.projects.queryinst.model import QueryInst

NARROW = (
    "model.decoder.embed_dim=32",
    "model.decoder.num_queries=9",
    "model.decoder.ffn_dim=32",
    "model.decoder.dynamic_dim=8",
)


def small_model(*overrides: str, config: str = "queryinst/queryinst_tiny.py") -> QueryInst:
    """The tiny config, narrower; `overrides` as on the command line."""
    cfg = apply_overrides(load_config(config), [*NARROW, *overrides])
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
        bitmasks = BitMasks(masks)
        inputs["instances"] = Instances(
            (height, width),
            gt_boxes=bitmasks.get_bounding_boxes(),
            gt_classes=torch.randint(0, 6, (num_instances,), generator=generator),
            gt_masks=bitmasks,
        )
    return inputs
