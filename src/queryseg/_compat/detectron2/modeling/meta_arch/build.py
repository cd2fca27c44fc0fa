"""Models by name, for models described by a yaml config."""

from typing import Any

import torch
from torch import nn

from detectron2.utils.registry import Registry

META_ARCH_REGISTRY = Registry("META_ARCH")


def build_model(cfg: Any) -> nn.Module:
    """Build the model named `cfg.MODEL.META_ARCHITECTURE`, without weights, on its device."""
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return model.to(torch.device(cfg.MODEL.DEVICE))
