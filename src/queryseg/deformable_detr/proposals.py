"""Two-stage Deformable DETR: the tokens of the encoder propose boxes (appendix A.4)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from queryseg.deformable_detr.box_refinement import box_head
from queryseg.deformable_detr.pyramid import cell_centres
from queryseg.deformable_detr.token_pyramid import TokenPyramid

ANCHOR_SIDE = 0.05
"""Side of an anchor of the finest level as a share of the image; it doubles with each level."""
MIN_SHARE, MAX_SHARE = 0.01, 0.99
"""An anchor with a number outside these bounds proposes nothing."""

Ranking = Literal["first_class", "best_class"]


@dataclass(frozen=True)
class Proposals:
    """What the encoder proposes.

    Args:
        class_logits: (B, S, K) of all tokens.
        boxes: (B, S, 4) of all tokens as cx, cy, w, h in [0, 1], in training; None in evaluation,
            which needs the chosen ones only.
        token_idx: (B, Q) int64, the best tokens, best first.
        references: (B, Q, 4) boxes of these, without gradient.
    """

    class_logits: Tensor
    boxes: Tensor | None
    token_idx: Tensor
    references: Tensor


class EncoderProposals(nn.Module):
    """Every token classifies and moves an anchor around itself; the best become queries.

    Tokens on padding and those whose anchor leaves the image are set to zero before the heads, so
    all of them have the same class logits; their box is the whole image, shifted to its corner.

    Args:
        embed_dim: C.
        num_classes: K.
        num_queries: Q; fewer where the pyramid has fewer tokens.
        ranking: what tokens are ranked by, the logit of class 0, which then stands for "any object"
            (Deformable DETR), or the largest logit (DINO).
        prior: probability that each class has at first.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 256,
        num_classes: int,
        num_queries: int = 300,
        ranking: Ranking = "first_class",
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.ranking = ranking
        self.linear = nn.Linear(embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.class_head = class_head(embed_dim, num_classes, prior)
        self.box_head = box_head(embed_dim)
        nn.init.xavier_uniform_(self.linear.weight)

    def forward(self, memory: TokenPyramid, num_queries: int | None = None) -> Proposals:
        """Propose boxes from the encoded pyramid.

        Args:
            memory: its tokens.
            num_queries: Q, if it is another one in this call.
        """
        anchors = anchor_logits(memory)
        tokens = self.tokens(memory, anchors)
        class_logits = self.class_head(tokens)
        scores = class_logits[..., 0] if self.ranking == "first_class" else class_logits.amax(-1)
        token_idx = self.select(scores, num_queries or self.num_queries)
        if self.training:
            boxes = self.boxes(tokens, anchors)
            references = _gather(boxes, token_idx)
            return Proposals(class_logits, boxes, token_idx, references.detach())
        references = self.boxes(_gather(tokens, token_idx), _gather(anchors, token_idx))
        return Proposals(class_logits, None, token_idx, references)

    def select(self, scores: Tensor, num_queries: int) -> Tensor:
        """(B, Q) tokens with the highest of scores (B, S), best first."""
        return scores.topk(min(num_queries, scores.shape[1]), dim=1).indices

    def tokens(self, memory: TokenPyramid, anchors: Tensor) -> Tensor:
        """(B, S, C) what the heads see."""
        proposing = anchors.isfinite().all(-1, keepdim=True)
        return self.norm(self.linear(memory.tokens.masked_fill(~proposing, 0.0)))

    def boxes(self, tokens: Tensor, anchors: Tensor) -> Tensor:
        """(B, N, 4) as cx, cy, w, h in [0, 1]."""
        deltas = self.box_head(tokens)
        return (deltas.to(torch.promote_types(deltas.dtype, anchors.dtype)) + anchors).sigmoid()


def anchor_logits(pyramid: TokenPyramid) -> Tensor:
    """Logits of a square around each token; infinite where it leaves the image or is padding.

    Returns:
        (B, S, 4) float32 as cx, cy, w, h.
    """
    shapes = pyramid.spatial_shapes
    centres = cell_centres(shapes, pyramid.valid_ratios, like=pyramid.tokens)
    own_level = torch.repeat_interleave(
        torch.arange(len(shapes)), torch.tensor([height * width for height, width in shapes])
    ).to(centres.device)
    tokens = torch.arange(len(own_level), device=centres.device)
    ratios = pyramid.valid_ratios[:, own_level]
    points = centres[:, tokens, own_level] / ratios
    sides = (ANCHOR_SIDE * 2.0**own_level)[None, :, None].expand(len(points), -1, 2)
    anchors = torch.cat((points, sides.to(points.dtype)), dim=-1)
    valid = ((anchors > MIN_SHARE) & (anchors < MAX_SHARE)).all(-1, keepdim=True)
    if pyramid.padding_mask is not None:
        valid = valid & ~pyramid.padding_mask[..., None]
    return (anchors / (1 - anchors)).log().masked_fill(~valid, math.inf)


def class_head(embed_dim: int, num_classes: int, prior: float = 0.01) -> nn.Linear:
    """A linear layer to class logits that gives each class the probability `prior` at first."""
    head = nn.Linear(embed_dim, num_classes)
    nn.init.constant_(head.bias, math.log(prior / (1 - prior)))
    return head


def _gather(values: Tensor, token_idx: Tensor) -> Tensor:
    """Rows (B, Q, C) of values (B, S, C)."""
    return values.gather(1, token_idx[..., None].expand(-1, -1, values.shape[-1]))
