"""Where coarse masks are likely to be wrong (section 3.2)."""

from collections.abc import Sequence
from itertools import pairwise

import fvcore.nn.weight_init as weight_init
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from queryseg.mask_refinement.coarse_mask_head import CoarseMasks
from queryseg.mask_refinement.roi_pyramid import RoIPyramid
from queryseg.mask_refinement.rois import RoIs


class SharedIncoherenceDetector(nn.Module):
    """One map for all levels of the tree, as in the release.

    Its input is the sum of the pooled features, through which no gradient flows, and of the coarse
    head's last hidden features.

    Args:
        channels: C.
        hidden_dim: channels of the last layers.
    """

    def __init__(self, *, channels: int = 256, hidden_dim: int = 128) -> None:
        super().__init__()
        widths = [channels] * 4 + [hidden_dim]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.deconv = nn.ConvTranspose2d(hidden_dim, hidden_dim, 2, stride=2)
        self.predictor = nn.Conv2d(hidden_dim, 1, 1)
        for layer in [*self.convs, self.deconv]:
            weight_init.c2_msra_fill(layer)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(
        self, coarse: CoarseMasks, coarse_probs: Tensor, maps: Sequence[Tensor], rois: RoIs
    ) -> list[Tensor]:
        """Logits of incoherence.

        Args:
            coarse: of N boxes.
            coarse_probs: (N, 1, m, m) of the box's own class; not used.
            maps: not used.
            rois: not used.

        Returns:
            One map (N, 1, 2s, 2s).
        """
        hidden = coarse.pooled.detach() + coarse.hidden
        for conv in self.convs:
            hidden = F.relu(conv(hidden))
        return [self.predictor(self.deconv(hidden))]


class CascadedIncoherenceDetector(nn.Module):
    """One map for each level, each guided by the coarser one, as in the paper.

    The root sees features and the coarse mask through four 3x3 convolutions. A finer level is one
    1x1 convolution of its features and of the enlarged coarser map. A 1x1 convolution and RoIAlign
    can change places, so it runs on the pyramid, and one channel is pooled: no feature map of the
    fine grids is ever made.

    The paper leaves open how the coarser map is enlarged; here each child takes its parent's
    probability.

    Args:
        pyramid: the grids.
        channels: C.
        guidance: let finer levels see the coarser map (Table 3).
    """

    def __init__(self, *, pyramid: RoIPyramid, channels: int = 256, guidance: bool = True) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.guidance = guidance
        widths = [channels + 1] + [channels] * 4
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.predictor = nn.Conv2d(channels, 1, 1)
        finer = len(pyramid.grid_sizes) - 1
        self.finer = nn.ModuleList(nn.Conv2d(channels, 1, 1, bias=False) for _ in range(finer))
        # Of a single level they are empty, and processes of a group would wait for their gradients.
        self.guide = nn.Parameter(torch.ones(finer), requires_grad=guidance and finer > 0)
        self.bias = nn.Parameter(torch.zeros(finer), requires_grad=finer > 0)
        for layer in self.convs:
            weight_init.c2_msra_fill(layer)
        for layer in [self.predictor, *self.finer]:
            nn.init.normal_(layer.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(
        self, coarse: CoarseMasks, coarse_probs: Tensor, maps: Sequence[Tensor], rois: RoIs
    ) -> list[Tensor]:
        """Logits of incoherence.

        Args:
            coarse: of N boxes; the pooled features have the resolution of the root.
            coarse_probs: (N, 1, m, m) of the box's own class.
            maps: L maps (B, C, H_l, W_l) that the grids are pooled from.
            rois: N boxes.

        Returns:
            One map (N, 1, size, size) for each grid.
        """
        size = coarse.pooled.shape[-1]
        if coarse_probs.shape[-1] != size:
            coarse_probs = F.interpolate(coarse_probs, (size, size), mode="bilinear")
        hidden = torch.cat([coarse.pooled, coarse_probs.detach().to(coarse.pooled.dtype)], 1)
        for conv in self.convs:
            hidden = F.relu(conv(hidden))
        logits = [self.predictor(hidden)]
        grids = zip(self.pyramid.grid_sizes[1:], self.pyramid.level_offsets[1:])
        for number, (grid, offset) in enumerate(grids):
            scores = [self.finer[number](one) for one in maps]
            fine = self.pyramid.pool(scores, rois, grid, offset)
            if self.guidance:
                parents = F.interpolate(logits[-1].sigmoid(), (grid, grid), mode="nearest")
                fine = fine + self.guide[number] * parents
            logits.append(fine + self.bias[number])
        return logits
