"""How well a mask fits, judged from the mask and its features (equation 12)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

NUM_CONVS = 3
STRIDE = 2


class MaskScoring(nn.Module):
    """Predicts the IoU of a mask with its object, one value for each class (Mask Scoring R-CNN).

    Three strided convolutions on the mask's probabilities and the region's features, then three
    linear layers: the one design that fits the paper's parameters and FLOPs.

    Args:
        embed_dim: d of the region features, and width of all layers.
        size: cells along each side of a region.
        num_classes: K.
    """

    def __init__(self, *, embed_dim: int, size: int, num_classes: int) -> None:
        super().__init__()
        widths = [embed_dim + 1, *[embed_dim] * NUM_CONVS]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=STRIDE, padding=1)
            for before, after in pairwise(widths)
        )
        for _ in range(NUM_CONVS):
            size = -(-size // STRIDE)
        self.linears = nn.ModuleList(
            (
                nn.Linear(size * size * embed_dim, embed_dim),
                nn.Linear(embed_dim, embed_dim),
                nn.Linear(embed_dim, num_classes),
            )
        )

    def forward(self, mask_logits: Tensor, features: Tensor) -> Tensor:
        """Judge masks.

        Args:
            mask_logits: (N, h, w); no gradient flows into them.
            features: (N, h, w, d) of the regions.

        Returns:
            (N, K), meant as IoU with an object of each class; not confined to [0, 1].
        """
        probs = mask_logits.detach().sigmoid()[:, None]
        x = torch.cat((probs.to(features.dtype), features.movedim(-1, 1)), dim=1)
        for conv in self.convs:
            x = conv(x).relu()
        x = x.flatten(1)
        for linear in self.linears[:-1]:
            x = linear(x).relu()
        return self.linears[-1](x)
