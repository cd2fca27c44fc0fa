"""A small Mask Frozen-DETR."""

import torch
from detectron2.config import instantiate

from queryseg.engine import apply_overrides, load_config
from queryseg.projects.mask_frozen_detr.model import MaskFrozenDETR


def small_model(*overrides: str, seed: int = 0) -> MaskFrozenDETR:
    """The tiny config; `overrides` as on the command line."""
    cfg = apply_overrides(load_config("mask_frozen_detr/mask_frozen_detr_tiny.py"), list(overrides))
    torch.manual_seed(seed)
    return instantiate(cfg.model)
