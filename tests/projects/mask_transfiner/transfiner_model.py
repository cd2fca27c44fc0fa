"""A small Mask Transfiner and inputs for it."""

from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from queryseg.engine import apply_overrides, load_config
from queryseg.projects.mask_transfiner.model import MaskTransfiner


def small_model(*overrides: str) -> MaskTransfiner:
    """The tiny config with masks that vary; `overrides` as on the command line."""
    cfg = apply_overrides(load_config("mask_transfiner/mask_transfiner_tiny.py"), list(overrides))
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    with torch.no_grad():
        for name, parameter in model.roi_heads.mask_head.named_parameters():
            if "predictor.weight" in name:
                parameter.mul_(300)
    return model


def image_input(
    height: int, width: int, num_instances: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """A noise image, with ellipses as instances if a number is given."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    inputs: dict[str, Any] = {"image": image, "height": height, "width": width}
    if num_instances is None:
        return inputs
    size = torch.tensor([width, height])
    corner = (0.5 * size * torch.rand(num_instances, 2, generator=generator)).floor()
    boxes = torch.cat([corner, corner + (size / 3).floor()], 1)
    inputs["instances"] = Instances(
        (height, width),
        gt_boxes=Boxes(boxes),
        gt_classes=torch.randint(0, 6, (num_instances,), generator=generator),
        gt_masks=BitMasks(_ellipses(boxes, height, width)),
    )
    return inputs


def _ellipses(boxes: Tensor, height: int, width: int) -> Tensor:
    x, y = torch.arange(width).view(1, 1, -1) + 0.5, torch.arange(height).view(1, -1, 1) + 0.5
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    across = (x - middle[:, 0].view(-1, 1, 1)) / half[:, 0].view(-1, 1, 1)
    down = (y - middle[:, 1].view(-1, 1, 1)) / half[:, 1].view(-1, 1, 1)
    return across.square() + down.square() < 1


def train_step(model: MaskTransfiner, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Losses of one forward and backward pass."""
    model.train()
    model.zero_grad()
    with EventStorage():
        losses = model(inputs)
    torch.stack(list(losses.values())).sum().backward()
    return losses
