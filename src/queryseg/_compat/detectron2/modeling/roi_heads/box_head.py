"""From the pooled features of a box to a vector."""

import math
from collections.abc import Sequence
from typing import Any

import fvcore.nn.weight_init as weight_init
from torch import Tensor, nn

from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.layers.batch_norm import Norm
from detectron2.utils.registry import Registry

ROI_BOX_HEAD_REGISTRY = Registry("ROI_BOX_HEAD")


@ROI_BOX_HEAD_REGISTRY.register()
class FastRCNNConvFCHead(nn.Sequential):
    """3x3 convolutions, then fully connected layers, each with a ReLU.

    Args:
        input_shape: of the pooled features.
        conv_dims: output channels of each convolution.
        fc_dims: width of each fully connected layer.
        conv_norm: after each convolution, as `get_norm` takes it.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dims: Sequence[int],
        fc_dims: Sequence[int],
        conv_norm: Norm = "",
    ) -> None:
        super().__init__()
        assert len(conv_dims) + len(fc_dims) > 0, "conv_dims and fc_dims are both empty"
        channels = input_shape.channels
        self.conv_norm_relus: list[Conv2d] = []
        for k, dim in enumerate(conv_dims, start=1):
            norm, relu, bias = get_norm(conv_norm, dim), nn.ReLU(), not conv_norm
            conv = Conv2d(channels, dim, 3, padding=1, bias=bias, norm=norm, activation=relu)
            self.add_module(f"conv{k}", conv)
            self.conv_norm_relus.append(conv)
            channels = dim
        self._output_shape = ShapeSpec(
            channels=channels, height=input_shape.height, width=input_shape.width
        )
        self.fcs: list[nn.Linear] = []
        if fc_dims:
            self.flatten = nn.Flatten()
            channels = math.prod((channels, input_shape.height, input_shape.width))
        for k, dim in enumerate(fc_dims, start=1):
            fc = nn.Linear(channels, dim)
            self.add_module(f"fc{k}", fc)
            self.add_module(f"fc_relu{k}", nn.ReLU())
            self.fcs.append(fc)
            channels = dim
            self._output_shape = ShapeSpec(channels=dim)
        for conv in self.conv_norm_relus:
            weight_init.c2_msra_fill(conv)
        for fc in self.fcs:
            weight_init.c2_xavier_fill(fc)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, fc_dims[-1]), or to (N, conv_dims[-1], h, w) without `fc_dims`."""
        return super().forward(x)

    @property
    def output_shape(self) -> ShapeSpec:
        """Shape of one output."""
        return self._output_shape


def build_box_head(cfg: Any, input_shape: ShapeSpec) -> nn.Module:
    """Build the head registered under the name `cfg.MODEL.ROI_BOX_HEAD.NAME`."""
    return ROI_BOX_HEAD_REGISTRY.get(cfg.MODEL.ROI_BOX_HEAD.NAME)(cfg, input_shape)
