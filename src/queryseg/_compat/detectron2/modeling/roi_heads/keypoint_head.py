"""The registry of keypoint heads; the heads themselves are outside the subset."""

from typing import Any

from torch import nn

from detectron2._subset import outside
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

ROI_KEYPOINT_HEAD_REGISTRY = Registry("ROI_KEYPOINT_HEAD")


def build_keypoint_head(cfg: Any, input_shape: ShapeSpec) -> nn.Module:
    """Build the head registered under the name `cfg.MODEL.ROI_KEYPOINT_HEAD.NAME`."""
    return ROI_KEYPOINT_HEAD_REGISTRY.get(cfg.MODEL.ROI_KEYPOINT_HEAD.NAME)(cfg, input_shape)


__getattr__ = outside(
    __name__,
    "BaseKeypointRCNNHead",
    "KRCNNConvDeconvUpsampleHead",
    "keypoint_rcnn_inference",
    "keypoint_rcnn_loss",
)
