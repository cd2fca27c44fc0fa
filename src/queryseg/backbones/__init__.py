"""Backbones that Detectron2 does not have, and a norm that its backbones can use."""

from queryseg.backbones.fixed_batch_norm import FixedBatchNorm
from queryseg.backbones.focalnet import FocalNet
from queryseg.backbones.resnet_d import ResNetD
from queryseg.backbones.swin import Swin

__all__ = ["FixedBatchNorm", "FocalNet", "ResNetD", "Swin"]
