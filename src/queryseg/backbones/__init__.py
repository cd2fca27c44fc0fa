"""Backbones that Detectron2 does not have."""

from queryseg.backbones.focalnet import FocalNet
from queryseg.backbones.resnet_d import ResNetD

__all__ = ["FocalNet", "ResNetD"]
