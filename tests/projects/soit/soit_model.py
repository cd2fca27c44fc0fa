"""A small SOIT and inputs for it."""

from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances

from queryseg.engine import apply_overrides, load_config
from queryseg.projects.soit.model import SOIT


def small_model(*overrides: str, config: str = "soit/soit_tiny.py") -> SOIT:
    """The tiny config; `overrides` as on the command line."""
    cfg = apply_overrides(load_config(config), list(overrides))
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
        boxes = torch.zeros(num_instances, 4)
        for mask, box in zip(masks, boxes):
            y, x = (
                int(torch.randint(0, side // 2, (), generator=generator)) for side in mask.shape
            )
            mask[y : y + height // 3, x : x + width // 3] = True
            box[:] = torch.tensor([x, y, x + width // 3, y + height // 3])
        inputs["instances"] = Instances(
            (height, width),
            gt_boxes=Boxes(boxes),
            gt_classes=torch.randint(0, 6, (num_instances,), generator=generator),
            gt_masks=BitMasks(masks),
        )
    return inputs


def train_step(model: SOIT, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Losses of one forward and backward pass."""
    model.train()
    model.zero_grad()
    losses = model(inputs)
    torch.stack(list(losses.values())).sum().backward()
    return losses
