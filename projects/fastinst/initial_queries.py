"""What every way of choosing the first queries hands to the decoder."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InitialQueries:
    """Object queries before the first decoder layer.

    Args:
        feats: (B, Q, C) content.
        position: (B, Q, C) positional embedding.
        locations: (B, Q, 2) as x, y in [0, 1] of the padded image; None where queries have none.
        pixel_idx: (B, Q) int64 flat index into the map they were picked from; None likewise.
        class_logits: (B, K+1, h, w) of the auxiliary classification head; None without one.
        score_map: (B, h, w) by which pixels were ranked; None likewise.
    """

    feats: Tensor
    position: Tensor
    locations: Tensor | None = None
    pixel_idx: Tensor | None = None
    class_logits: Tensor | None = None
    score_map: Tensor | None = None

    @property
    def centres(self) -> Tensor | None:
        """(B, Q, 2) x, y of the middle of each query's cell, in [0, 1]; None without a place."""
        if self.pixel_idx is None or self.score_map is None:
            return self.locations
        height, width = self.score_map.shape[-2:]
        x = (self.pixel_idx % width + 0.5) / width
        y = (self.pixel_idx.div(width, rounding_mode="floor") + 0.5) / height
        return torch.stack((x, y), dim=-1)
