"""Feature pyramid networks (https://arxiv.org/abs/1612.03144)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import fvcore.nn.weight_init as weight_init
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2._subset import outside
from detectron2.layers import Conv2d, get_norm
from detectron2.layers.batch_norm import Norm

from .backbone import Backbone


class FPN(Backbone):
    """Adds coarse features, upsampled, to fine ones; all outputs have the same channels.

    Outputs are named by the logarithm of their stride: "p2" (stride 4), "p3", ...

    Args:
        bottom_up: backbone that gives the input features.
        in_features: names of its features to use, finest first, each of twice the stride before.
        out_channels: channels of every output.
        norm: after every convolution, as `get_norm` takes it; with "" they have a bias.
        top_block: module that appends coarser outputs. Its attributes: `num_levels`, how many, and
            `in_feature`, the name of its input (of an output here or a feature of `bottom_up`).
        fuse_type: "sum" or "avg" of the fine and the upsampled feature.
        square_pad: if > 0, images are padded to squares of this size.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: Norm = "",
        top_block: nn.Module | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        assert isinstance(bottom_up, Backbone), f"{type(bottom_up)} is not a Backbone"
        assert fuse_type in ("avg", "sum"), f"fuse_type must be 'avg' or 'sum', got {fuse_type!r}"
        shapes = bottom_up.output_shape()
        strides = [shapes[name].stride for name in in_features]
        assert strides, "in_features is empty"
        for fine, coarse in pairwise(strides):
            assert coarse == 2 * fine, f"strides {strides} do not double from one to the next"

        # Finest first in the state dict; coarsest first in the lists, as the computation goes.
        self.lateral_convs: list[Conv2d] = []
        self.output_convs: list[Conv2d] = []
        levels = [int(math.log2(stride)) for stride in strides]
        for name, level in zip(in_features, levels):
            lateral_norm, output_norm = get_norm(norm, out_channels), get_norm(norm, out_channels)
            bias = norm == ""
            lateral = Conv2d(shapes[name].channels, out_channels, 1, bias=bias, norm=lateral_norm)
            output = Conv2d(out_channels, out_channels, 3, padding=1, bias=bias, norm=output_norm)
            for conv in (lateral, output):
                weight_init.c2_xavier_fill(conv)
            self.add_module(f"fpn_lateral{level}", lateral)
            self.add_module(f"fpn_output{level}", output)
            self.lateral_convs.insert(0, lateral)
            self.output_convs.insert(0, output)
        self.top_block = top_block
        self.in_features = tuple(in_features)
        self.bottom_up = bottom_up
        if top_block is not None:
            levels += [levels[-1] + 1 + i for i in range(top_block.num_levels)]
        self._out_feature_strides = {f"p{level}": 2**level for level in levels}
        self._out_features = list(self._out_feature_strides)
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad
        self._fuse_type = fuse_type

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride that takes part in the sums."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The square size, if any."""
        return {"square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the pyramid of images (B, 3, H, W), finest level first."""
        features = self.bottom_up(x)
        outputs: list[Tensor] = []
        merged = None
        coarse_to_fine = zip(reversed(self.in_features), self.lateral_convs, self.output_convs)
        for name, lateral, output in coarse_to_fine:
            fine = lateral(features[name])
            if merged is None:
                merged = fine
            else:
                merged = fine + F.interpolate(merged, scale_factor=2.0, mode="nearest")
                if self._fuse_type == "avg":
                    merged /= 2
            outputs.insert(0, output(merged))
        if self.top_block is not None:
            name = self.top_block.in_feature
            known = features if name in features else dict(zip(self._out_features, outputs))
            outputs.extend(self.top_block(known[name]))
        assert len(outputs) == len(self._out_features), "top_block gave another number of levels"
        return dict(zip(self._out_features, outputs))


class LastLevelMaxPool(nn.Module):
    """Makes p6 from p5 by taking every second pixel."""

    num_levels = 1
    in_feature = "p5"

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) to one map of half the size."""
        return [F.max_pool2d(x, kernel_size=1, stride=2)]


class LastLevelP6P7(nn.Module):
    """Makes p6 and p7 with convolutions of stride 2, as in RetinaNet.

    Args:
        in_feature: name of the feature p6 is made from.
    """

    num_levels = 2

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5") -> None:
        super().__init__()
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        for conv in (self.p6, self.p7):
            weight_init.c2_xavier_fill(conv)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) to maps of half and a quarter of the size."""
        p6 = self.p6(x)
        return [p6, self.p7(F.relu(p6))]


__getattr__ = outside(__name__, "build_resnet_fpn_backbone", "build_retinanet_resnet_fpn_backbone")
