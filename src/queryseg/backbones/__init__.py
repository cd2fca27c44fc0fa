"""Backbones that Detectron2 does not have."""

from queryseg.backbones.focalnet import FocalNet
from queryseg.backbones.resnet_d import ResNetD
from queryseg.backbones.swin import Swin

__all__ = ["FocalNet", "ResNetD", "Swin"]
