"""The registry of per-pixel heads; the heads themselves are outside the subset."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from detectron2._subset import outside
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")


def build_sem_seg_head(cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> nn.Module:
    """Build the head registered under the name `cfg.MODEL.SEM_SEG_HEAD.NAME`."""
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, input_shape)


__getattr__ = outside(__name__, "SemSegFPNHead", "SemanticSegmentor")
