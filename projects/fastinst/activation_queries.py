"""Instance activation-guided queries: pixels that look like objects become queries."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from queryseg.projects.fastinst.initial_queries import InitialQueries

LEAST_MAXIMUM = 1e-6
"""A probability below this is no local maximum (release)."""

LocalMaximum = Literal["own_class", "class_plane"]


class ActivationQueries(nn.Module):
    """Pick the most object-like pixels of one level as queries (section 3.3).

    A classification head gives each pixel its most likely class and that class' probability. Local
    maxima of that probability come first, then all other pixels, each by falling probability. Maps
    with fewer pixels than `num_queries` give as many queries as they have pixels.

    Args:
        embed_dim: C.
        num_classes: K.
        num_queries: N_a.
        level: pyramid level the pixels are taken from; 0 is the finest (E3), 1 is E4.
        local_maximum: what a pixel is compared with. "own_class": neighbours whose most likely
            class is the same (release). "class_plane": the probability that every neighbour gives
            to the pixel's class (paper).
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_classes: int,
        num_queries: int,
        level: int = 1,
        local_maximum: LocalMaximum = "own_class",
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.level = level
        self.local_maximum = local_maximum
        self.classifier = nn.Sequential(
            nn.Conv2d(embed_dim, embed_dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(embed_dim, num_classes + 1, 1),
        )

    def forward(
        self, pyramid: Sequence[Tensor], positions: Callable[[Tensor], Tensor]
    ) -> InitialQueries:
        """Choose the queries of each image.

        Args:
            pyramid: (B, C, h, w) maps, finest first.
            positions: the (1, C, h, w) positional embedding of a map.

        Returns:
            Queries by falling rank. Gradients reach the map through the picked columns, not
            through the choice.
        """
        feature = pyramid[self.level]
        height, width = feature.shape[-2:]
        class_logits = self.classifier(feature)
        score_map = self.rank(class_logits.detach().float().softmax(1))
        ranked = score_map.flatten(1)
        pixel_idx = ranked.topk(min(self.num_queries, ranked.shape[1])).indices
        columns = pixel_idx[..., None].expand(-1, -1, feature.shape[1])
        position = positions(feature).flatten(2).mT.expand(len(feature), -1, -1)
        return InitialQueries(
            feats=feature.flatten(2).mT.gather(1, columns),
            position=position.gather(1, columns),
            locations=pixel_locations(pixel_idx, height, width),
            pixel_idx=pixel_idx,
            class_logits=class_logits,
            score_map=score_map,
        )

    def rank(self, class_probs: Tensor) -> Tensor:
        """The value by which pixels are chosen.

        Args:
            class_probs: (B, K+1, h, w), "no object" last.

        Returns:
            (B, h, w): the best class probability, plus one at local maxima.
        """
        best, classes = class_probs[:, :-1].max(1)
        if self.local_maximum == "own_class":
            around = _best_neighbour_of_same_class(best, classes)
        else:
            planes = F.max_pool2d(class_probs[:, :-1], 3, stride=1, padding=1)
            around = planes.gather(1, classes[:, None])[:, 0]
        return best + ((best >= around) & (best >= LEAST_MAXIMUM))


def _best_neighbour_of_same_class(best: Tensor, classes: Tensor) -> Tensor:
    """(B, h, w): largest probability in the 3x3 around each pixel among pixels of its class."""
    batch, height, width = best.shape
    planes = torch.stack((best, classes.to(best.dtype)), dim=1)
    patches = F.unfold(planes, 3, padding=1).view(batch, 2, 9, height, width)
    same = patches[:, 1] == classes[:, None]
    return (patches[:, 0] * same).amax(1)


def pixel_locations(pixel_idx: Tensor, height: int, width: int) -> Tensor:
    """x, y in [0, 1] of pixels, the outermost pixels lying on the border (release).

    Args:
        pixel_idx: (B, Q) flat index into a (height, width) map.

    Returns:
        (B, Q, 2) float32.
    """
    x = (pixel_idx % width) / max(width - 1, 1)
    y = pixel_idx.div(width, rounding_mode="floor") / max(height - 1, 1)
    return torch.stack((x, y), dim=-1)
