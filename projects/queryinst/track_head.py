"""The track head of MaskTrack R-CNN: one embedding for each box, the same for the same object."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from queryseg.projects.queryinst.roi_features import BoxFeatures

INIT_STD = 0.01


class TrackHead(nn.Module):
    """Two linear layers on the pooled features of a box (section 3.6).

    Args:
        embed_dim: C of the pyramid.
        box_features: pools the boxes.
        track_dim: width of both layers, so of the embeddings.
    """

    def __init__(self, *, embed_dim: int, box_features: BoxFeatures, track_dim: int = 1024) -> None:
        super().__init__()
        self.box_features = box_features
        self.layers = nn.Sequential(
            nn.Linear(box_features.resolution**2 * embed_dim, track_dim),
            nn.ReLU(),
            nn.Linear(track_dim, track_dim),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=INIT_STD)
                nn.init.zeros_(layer.bias)

    def forward(
        self, features: Sequence[Tensor], boxes_xyxy_abs: Tensor, image_idx: Tensor
    ) -> Tensor:
        """Embed boxes of a batch.

        Args:
            features: levels (B, C, H, W), finest first.
            boxes_xyxy_abs: (N, 4) in pixels; no gradient flows to them.
            image_idx: (N,) int64, image of each box.

        Returns:
            (N, D).
        """
        return self.layers(self.box_features(features, boxes_xyxy_abs, image_idx).flatten(1))


def match_logits(embeddings: Tensor, known: Tensor) -> Tensor:
    """How well boxes fit known objects: their scalar products, behind a 0 for "a new one".

    Args:
        embeddings: (N, D).
        known: (M, D).

    Returns:
        (N, 1 + M).

    >>> match_logits(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0], [0.0, 1.0]]))
    tensor([[0., 5., 2.]])
    """
    products = embeddings @ known.T
    return torch.cat([products.new_zeros(len(embeddings), 1), products], dim=1)
