"""The interface of everything that turns images into feature maps."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from detectron2.layers import ShapeSpec


class Backbone(nn.Module, ABC):
    """Base class of backbones.

    A subclass either overrides `output_shape` or sets `_out_features` (names),
    `_out_feature_channels` and `_out_feature_strides` (both by name).
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute named feature maps, each (B, C_l, H_l, W_l), of images (B, 3, H, W)."""

    @property
    def size_divisibility(self) -> int:
        """Height and width must be multiples of this; 0 = any size is fine."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """What else the padding must satisfy: "size_divisibility" and "square_size", if any."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each output."""
        channels, strides = self._out_feature_channels, self._out_feature_strides
        return {
            name: ShapeSpec(channels=channels[name], stride=strides[name])
            for name in self._out_features
        }
