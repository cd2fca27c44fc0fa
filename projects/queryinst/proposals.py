"""What every image starts from: learned boxes and one feature vector for each (Sparse R-CNN)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from queryseg.projects.queryinst.boxes import boxes_from_centres, sides_of_images


class ProposalQueries(nn.Module):
    """Learned boxes, which start as the whole image, and learned query features.

    Args:
        num_queries: N.
        embed_dim: C of the features.
        separate_mask_queries: learn a second set of features for the mask heads (Table 6, a and b).
    """

    def __init__(
        self, *, num_queries: int, embed_dim: int, separate_mask_queries: bool = False
    ) -> None:
        super().__init__()
        whole_image = torch.tensor([0.5, 0.5, 1.0, 1.0])
        self.boxes_cxcywh_norm = nn.Parameter(whole_image.repeat(num_queries, 1))
        self.query_feats = nn.Parameter(torch.randn(num_queries, embed_dim))
        self.mask_query_feats = (
            nn.Parameter(torch.randn(num_queries, embed_dim)) if separate_mask_queries else None
        )

    def forward(
        self, image_sizes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Boxes and queries of a batch.

        Args:
            image_sizes: (height, width) of each image without padding.

        Returns:
            boxes (B, Q, 4) as x0, y0, x1, y1 in pixels; query features (B, Q, C); and those of the
            mask heads, None where both tasks share theirs.
        """
        boxes = boxes_from_centres(self.boxes_cxcywh_norm)
        boxes_xyxy_abs = boxes * sides_of_images(image_sizes, boxes)[:, None]
        batch = len(image_sizes)
        mask_queries = self.mask_query_feats
        return (
            boxes_xyxy_abs,
            self.query_feats.expand(batch, -1, -1),
            None if mask_queries is None else mask_queries.expand(batch, -1, -1),
        )
