"""The tiny configs on a handful of small images, for tests that train every method alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from detectron2.engine import HookBase
from omegaconf import DictConfig
from torch import nn

from queryseg.data.moving_shapes.__main__ import main as write_moving_shapes
from queryseg.data.shapes.__main__ import main as write_shapes
from queryseg.engine import apply_overrides, load_config

TINY_CONFIGS = (
    "fastinst/fastinst_tiny.py",
    "queryinst/queryinst_tiny.py",
    "queryinst/queryinst_vis_tiny.py",
    "soit/soit_tiny.py",
    "detectors/hdetr_tiny.py",
    "mask_frozen_detr/mask_frozen_detr_tiny.py",
    "mask_transfiner/mask_transfiner_tiny.py",
)


def write_data(root: Path) -> None:
    """Eight images and four videos of 64 pixels in the folder of the known data sets."""
    small = ["--size", "64", "--radius", "10", "24"]
    write_shapes(["--output", str(root / "shapes"), "--train", "8", "--val", "2", *small])
    videos = ["--train", "4", "--val", "1", "--frames", "4"]
    write_moving_shapes(["--output", str(root / "moving_shapes"), *videos, *small])


def tiny_config(name: str, output_dir: Path, *overrides: str) -> DictConfig:
    """A tiny config that trains on 64-pixel images and does not evaluate."""
    cfg = load_config(name)
    del cfg.dataloader.evaluator
    cfg.dataloader.train.mapper.augmentations[0].short_edge_length = 64
    settings = (
        "device=cpu",
        "init_checkpoint=''",
        "total_batch_size=2",
        f"output_dir={output_dir}",
    )
    return apply_overrides(cfg, [*(f"train.{setting}" for setting in settings), *overrides])


class Losses(HookBase):
    """Keeps every loss of every iteration."""

    def __init__(self) -> None:
        self.of_step: list[dict[str, float]] = []

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        self.of_step.append({name: latest[name][0] for name in latest if "loss" in name})

    @property
    def totals(self) -> torch.Tensor:
        return torch.tensor([losses["total_loss"] for losses in self.of_step])


def fix_batch_norms(model: nn.Module) -> None:
    """Statistics of the batch would differ between one process and two."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


@contextmanager
def chance_by_object() -> Iterator[None]:
    """Inside, the random numbers of an object are the same in whatever batch it comes.

    `torch.rand` repeats one row however many are asked for, and nothing is shuffled.
    """

    def rand(*size: Any, **options: Any) -> torch.Tensor:
        shape = torch.Size(size[0] if isinstance(size[0], list | tuple) else size)
        row = shape[1:] if len(shape) > 2 else shape[-1:]
        generator = torch.Generator().manual_seed(row.numel())
        return torch.empty(row).uniform_(generator=generator).expand(shape).clone()

    def randperm(length: int, **options: Any) -> torch.Tensor:
        return torch.arange(length)

    with mock.patch.multiple(torch, rand=rand, randperm=randperm):
        yield
