"""Synthetic sets that a small model learns on a CPU in minutes."""

from collections.abc import Sequence

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from queryseg.data.augmentations import RandomRotation90

FLIP = L(T.RandomFlip)(prob=0.5)
ANY_QUARTER_TURN = (FLIP, L(RandomRotation90)())


def use_small_set(
    dataloader: DictConfig, name: str = "shapes", augmentations: Sequence[DictConfig] = (FLIP,)
) -> None:
    """Train on `<name>_train` and evaluate on `<name>_val`, read by the process itself.

    Args:
        dataloader: changed in place.
        name: of the set.
        augmentations: after the shorter side was brought to 128 pixels.
    """
    resize = L(T.ResizeShortestEdge)(short_edge_length=128, max_size=213)
    for loader, split in ((dataloader.train, "train"), (dataloader.test, "val")):
        loader.dataset.names = f"{name}_{split}"
        loader.num_workers = 0
        loader.mapper.augmentations = [resize]
    dataloader.train.mapper.augmentations = [resize, *augmentations]
