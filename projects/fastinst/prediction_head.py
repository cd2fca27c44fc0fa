"""Class and mask of each query, from the queries and the pixels of one stage."""

from dataclasses import dataclass

from torch import Tensor, nn

from queryseg.layers import MLP


@dataclass(frozen=True)
class Prediction:
    """What one head says.

    Args:
        class_logits: (B, Q, K+1), "no object" last; None where nobody needs it.
        mask_logits: (B, Q, h, w) at the finest level.
    """

    class_logits: Tensor | None
    mask_logits: Tensor


class PredictionHead(nn.Module):
    """Two MLPs on the normalised queries and a linear map of the pixels (section 3.4).

    Each stage of the decoder has its own: queries and pixels of different stages live in different
    spaces.

    Args:
        embed_dim: C.
        num_classes: K.
    """

    def __init__(self, *, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(embed_dim)
        self.class_embed = MLP(
            input_dim=embed_dim, hidden_dim=embed_dim, output_dim=num_classes + 1, num_layers=3
        )
        self.mask_embed = MLP(
            input_dim=embed_dim, hidden_dim=embed_dim, output_dim=embed_dim, num_layers=3
        )
        self.mask_features = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        query_feats: Tensor,
        pixel_feats: Tensor,
        mask_size: tuple[int, int],
        with_classes: bool,
    ) -> Prediction:
        """Predict.

        Args:
            query_feats: (B, Q, C) object queries, without the auxiliary ones.
            pixel_feats: (B, S, C), S = h * w of `mask_size`.
            mask_size: (h, w).
            with_classes: whether to compute the class logits.
        """
        queries = self.query_norm(query_feats)
        mask_logits = self.mask_embed(queries) @ self.mask_features(pixel_feats).mT
        return Prediction(
            class_logits=self.class_embed(queries) if with_classes else None,
            mask_logits=mask_logits.unflatten(-1, mask_size),
        )
