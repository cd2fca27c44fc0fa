"""The mask head that gives the coarse masks (section 6.1)."""

from itertools import pairwise
from typing import NamedTuple

import fvcore.nn.weight_init as weight_init
from torch import Tensor, nn
from torch.nn import functional as F


class CoarseMasks(NamedTuple):
    """What the coarse head computes for N boxes.

    Attributes:
        mask_logits: (N, K, m, m), K 1 where masks are class-agnostic.
        pooled: (N, C, s, s), the input.
        hidden: (N, C', s, s), after the last 3x3 convolution and its ReLU.
        boundary_logits: (N, 1, m, m) in training with a boundary branch, else None.
    """

    mask_logits: Tensor
    pooled: Tensor
    hidden: Tensor
    boundary_logits: Tensor | None


class CoarseMaskHead(nn.Module):
    """3x3 convolutions, a doubling of the resolution, one mask for each class.

    Args:
        in_channels: C of the pooled features.
        num_classes: K; 1 for class-agnostic masks.
        conv_dim: channels between.
        num_convs: 3x3 convolutions.
        pooled_size: rows of the grid of a box that the head sees: 14 in the release, 28 in the
            paper.
        upsample: double the resolution by a transposed convolution (the release); the paper's head
            stays at the 28 rows it is given.
        boundary: a second branch that learns the outlines of the masks (the release).
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        num_classes: int = 80,
        conv_dim: int = 256,
        num_convs: int = 4,
        pooled_size: int = 14,
        upsample: bool = True,
        boundary: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pooled_size = pooled_size
        self.mask_size = 2 * pooled_size if upsample else pooled_size
        widths = [in_channels] + [conv_dim] * num_convs
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.deconv = nn.ConvTranspose2d(conv_dim, conv_dim, 2, stride=2) if upsample else None
        self.predictor = _predictor(conv_dim, num_classes)
        self.boundary_deconv = (
            nn.ConvTranspose2d(conv_dim, conv_dim, 2, stride=2) if boundary and upsample else None
        )
        self.boundary_predictor = _predictor(conv_dim, 1) if boundary else None
        for layer in [*self.convs, self.deconv, self.boundary_deconv]:
            if layer is not None:
                weight_init.c2_msra_fill(layer)

    def forward(self, pooled: Tensor) -> CoarseMasks:
        """(N, C, s, s) to coarse masks."""
        hidden = pooled
        for conv in self.convs:
            hidden = F.relu(conv(hidden))
        doubled = hidden if self.deconv is None else F.relu(self.deconv(hidden))
        boundary_logits = None
        if self.training and self.boundary_predictor is not None:
            deconv = self.boundary_deconv
            outline = hidden if deconv is None else F.relu(deconv(hidden))
            boundary_logits = self.boundary_predictor(outline)
        return CoarseMasks(self.predictor(doubled), pooled, hidden, boundary_logits)


def _predictor(channels: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, outputs, 1)
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
