"""A small mask head with everything on, and inputs for it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from torch import Tensor

from queryseg.engine import apply_overrides, load_config
from queryseg.mask_refinement.mask_head import QuadtreeMaskHead

WIDTH = 64
SIZE = (96, 128)
NAMES = ("p2", "p3", "p4")


def make_head(*overrides: str, config: str = "mask_transfiner_tiny") -> QuadtreeMaskHead:
    """The tiny config's mask head with detections that vary; overrides are below it."""
    cfg = load_config(f"mask_transfiner/{config}.py")
    apply_overrides(cfg, [f"model.roi_heads.mask_head.{one}" for one in overrides])
    torch.manual_seed(0)
    head = instantiate(cfg.model).roi_heads.mask_head
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if "predictor.weight" in name:
                parameter.mul_(300)
    return head.eval()


def make_maps(batch: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    height, width = SIZE
    return {
        name: torch.randn(batch, WIDTH, height // 2**k, width // 2**k, generator=generator)
        for k, name in enumerate(NAMES, start=2)
    }


def make_instances(counts: tuple[int, ...] = (3, 2), training: bool = False) -> list[Instances]:
    generator = torch.Generator().manual_seed(1)
    images = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * 50
        boxes = torch.cat([corner, corner + 20 + 25 * torch.rand(count, 2, generator=generator)], 1)
        image = Instances(SIZE)
        classes = torch.randint(6, (count,), generator=generator)
        if training:
            image.proposal_boxes, image.gt_classes = Boxes(boxes), classes
            image.gt_masks = BitMasks(_discs(boxes))
        else:
            image.pred_boxes, image.pred_classes = Boxes(boxes), classes
        images.append(image)
    return images


def _discs(boxes: Tensor) -> Tensor:
    x, y = torch.arange(SIZE[1]).view(1, 1, -1), torch.arange(SIZE[0]).view(1, -1, 1)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    across = (x - middle[:, 0].view(-1, 1, 1)) / half[:, 0].view(-1, 1, 1)
    down = (y - middle[:, 1].view(-1, 1, 1)) / half[:, 1].view(-1, 1, 1)
    return across**2 + down**2 < 0.8


def benchmark() -> ModuleType:
    """`benchmarks/mask_transfiner_refinement.py`, which holds the dense formulation."""
    path = Path(__file__).parents[2] / "benchmarks" / "mask_transfiner_refinement.py"
    spec = importlib.util.spec_from_file_location("mask_transfiner_refinement", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
