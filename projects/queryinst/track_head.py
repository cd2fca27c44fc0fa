"""The track head of MaskTrack R-CNN: one embedding for each box, the same for the same object."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from queryseg.projects.queryinst.roi_features import BoxFeatures

INIT_STD = 0.01
LEAST_WEIGHT = 1e-4
"""Divides the features of a mask without any pixel."""

TrackPooling = Literal["cells", "mask"]


class TrackHead(nn.Module):
    """Two linear layers on the pooled features of a box (section 3.6).

    Args:
        embed_dim: C of the pyramid.
        box_features: pools the boxes.
        track_dim: width of both layers, so of the embeddings.
        pooling: what the layers read. "cells": all cells of the box, as in MaskTrack R-CNN. "mask":
            their mean over the mask in it. Where objects cross, their boxes hold one another, and
            only the masks tell whose features are whose.
        max_product: give all embeddings one length, so that a product is the cosine times this.
            None leaves the lengths to training, as MaskTrack R-CNN does: products then depend on
            how long an embedding happens to be.

    Raises:
        ValueError: an unknown pooling, or a `max_product` that is not positive.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        box_features: BoxFeatures,
        track_dim: int = 1024,
        pooling: TrackPooling = "cells",
        max_product: float | None = None,
    ) -> None:
        super().__init__()
        if pooling not in ("cells", "mask"):
            raise ValueError(f"pooling is {pooling!r}; expected 'cells' or 'mask'")
        if max_product is not None and max_product <= 0:
            raise ValueError(f"max_product is {max_product}; expected a positive number or null")
        self.box_features = box_features
        self.pooling = pooling
        self.max_product = max_product
        cells = box_features.resolution**2 if pooling == "cells" else 1
        self.layers = nn.Sequential(
            nn.Linear(cells * embed_dim, track_dim),
            nn.ReLU(),
            nn.Linear(track_dim, track_dim),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=INIT_STD)
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        features: Sequence[Tensor],
        boxes_xyxy_abs: Tensor,
        image_idx: Tensor,
        mask_probs: Tensor,
    ) -> Tensor:
        """Embed boxes of a batch.

        Args:
            features: levels (B, C, H, W), finest first.
            boxes_xyxy_abs: (N, 4) in pixels; no gradient flows to them.
            image_idx: (N,) int64, image of each box.
            mask_probs: (N, h, w) inside the boxes, which pooling by "cells" does not look at; no
                gradient flows to them.

        Returns:
            (N, D).
        """
        cells = self.box_features(features, boxes_xyxy_abs, image_idx)
        if self.pooling == "mask":
            cells = mean_over_mask(cells, mask_probs.detach())
        embeddings = self.layers(cells.flatten(1))
        if self.max_product is None:
            return embeddings
        return F.normalize(embeddings, dim=1) * self.max_product**0.5


def mean_over_mask(cells: Tensor, mask_probs: Tensor) -> Tensor:
    """Mean of the features of a box, each cell weighing as much as the mask covers of it.

    Args:
        cells: (N, R * R, C), rows of cells one after the other.
        mask_probs: (N, h, w) of the same boxes.

    Returns:
        (N, C).

    >>> cells = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    >>> mean_over_mask(cells, torch.tensor([[[0.0, 1.0], [0.0, 0.5]]]))
    tensor([[2.6667]])
    """
    side = round(cells.shape[1] ** 0.5)
    weights = F.adaptive_avg_pool2d(mask_probs.to(cells.dtype), side).flatten(1)
    total = weights.sum(dim=1, keepdim=True).clamp(min=LEAST_WEIGHT)
    return ((weights / total)[:, None] @ cells)[:, 0]


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
