"""What the model says about a batch."""

from dataclasses import dataclass

from torch import Tensor

from queryseg.deformable_detr import Decoded, Proposals
from queryseg.projects.soit.mask_branch import MaskFeatures


@dataclass(frozen=True)
class Prediction:
    """Classes, boxes and what masks are made from.

    Args:
        proposals: of the encoder; None for learned queries.
        decoded: queries and boxes of each decoder layer.
        class_logits: of each decoder layer (B, Q, K), the last one alone in evaluation.
        mask_features: the shared maps; None for a model without masks.
    """

    proposals: Proposals | None
    decoded: Decoded
    class_logits: list[Tensor]
    mask_features: MaskFeatures | None
