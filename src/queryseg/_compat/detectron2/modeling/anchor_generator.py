"""Reference boxes on the grid of each feature map."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detectron2._subset import outside
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes
from detectron2.utils.registry import Registry

ANCHOR_GENERATOR_REGISTRY = Registry("ANCHOR_GENERATOR")


class BufferList(nn.Module):
    """Tensors that move with the module and are not saved with it."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        super().__init__()
        for i, buffer in enumerate(buffers):
            self.register_buffer(str(i), buffer, persistent=False)

    def __len__(self) -> int:
        return len(self._buffers)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._buffers.values())


@ANCHOR_GENERATOR_REGISTRY.register()
class DefaultAnchorGenerator(nn.Module):
    """Anchors of some sizes and shapes at every cell (https://arxiv.org/abs/1506.01497).

    Args:
        sizes: square roots of the areas, in pixels: one list per feature map, or one for all.
        aspect_ratios: height / width, likewise.
        strides: of each feature map.
        offset: of the first centre from the corner of the image, in strides, in [0, 1).
    """

    box_dim = 4

    @configurable
    def __init__(
        self,
        *,
        sizes: Sequence[Any],
        aspect_ratios: Sequence[Any],
        strides: Sequence[int],
        offset: float = 0.5,
    ) -> None:
        super().__init__()
        assert 0.0 <= offset < 1.0, f"offset must lie in [0, 1), got {offset}"
        self.strides = strides
        self.num_features = len(strides)
        self.offset = offset
        sizes = _per_feature(sizes, self.num_features, "sizes")
        aspect_ratios = _per_feature(aspect_ratios, self.num_features, "aspect_ratios")
        anchors = [self.generate_cell_anchors(s, a) for s, a in zip(sizes, aspect_ratios)]
        self.cell_anchors = BufferList(anchors)

    @property
    def num_anchors(self) -> list[int]:
        """Anchors per cell of each feature map."""
        return [len(anchors) for anchors in self.cell_anchors]

    @property
    def num_cell_anchors(self) -> list[int]:
        """The same as `num_anchors`."""
        return self.num_anchors

    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1, 2),
    ) -> Tensor:
        """Make (len(sizes) * len(aspect_ratios), 4) float32 xyxy anchors about (0, 0)."""
        anchors = []
        for size in sizes:
            for ratio in aspect_ratios:
                width = math.sqrt(size**2.0 / ratio)
                height = ratio * width
                anchors.append([-width / 2.0, -height / 2.0, width / 2.0, height / 2.0])
        return torch.tensor(anchors).float()

    def forward(self, features: Sequence[Tensor]) -> list[Boxes]:
        """Make the anchors of each feature map (B, C, H, W), in the order (y, x, anchor)."""
        per_level = zip(features, self.strides, self.cell_anchors)
        return [
            Boxes(self._grid_anchors(feature.shape[-2:], stride, anchors))
            for feature, stride, anchors in per_level
        ]

    def _grid_anchors(self, size: Sequence[int], stride: int, anchors: Tensor) -> Tensor:
        """Place `anchors` (A, 4) at every cell of a map of `size` (H, W): (H * W * A, 4)."""
        start = self.offset * stride
        axes = [
            torch.arange(start, n * stride, stride, dtype=torch.float32).to(anchors.device)
            for n in size
        ]
        y, x = (grid.reshape(-1) for grid in torch.meshgrid(*axes, indexing="ij"))
        shifts = torch.stack([x, y, x, y], dim=1)
        return (shifts[:, None] + anchors).reshape(-1, 4)


def build_anchor_generator(cfg: Any, input_shape: Sequence[ShapeSpec]) -> nn.Module:
    """Build the anchor generator registered under the name `cfg.MODEL.ANCHOR_GENERATOR.NAME`."""
    return ANCHOR_GENERATOR_REGISTRY.get(cfg.MODEL.ANCHOR_GENERATOR.NAME)(cfg, input_shape)


def _per_feature(values: Sequence[Any], num_features: int, name: str) -> Sequence[Sequence[float]]:
    assert isinstance(values, Sequence) and len(values), f"{name} must be a list, got {values}"
    if not isinstance(values[0], Sequence):
        return [values] * num_features
    if len(values) == 1:
        return [values[0]] * num_features
    assert len(values) == num_features, f"{len(values)} {name} for {num_features} feature maps"
    return values


__getattr__ = outside(__name__, "RotatedAnchorGenerator")
