"""What every image starts from: learned boxes and one feature vector for each (Sparse R-CNN)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from queryseg.projects.queryinst.boxes import boxes_from_centres, sides_of_images

BoxInit = Literal["image", "grid"]


class ProposalQueries(nn.Module):
    """Learned boxes and learned query features.

    Args:
        num_queries: N.
        embed_dim: C of the features.
        separate_mask_queries: learn a second set of features for the mask heads (Table 6, a and b).
        box_init: where the boxes start: each as the whole "image" (release), or in a "grid", which
            Sparse R-CNN found to be as good after a long training; a short one gains time.

    Raises:
        ValueError: an unknown start.
    """

    def __init__(
        self,
        *,
        num_queries: int,
        embed_dim: int,
        separate_mask_queries: bool = False,
        box_init: BoxInit = "image",
    ) -> None:
        super().__init__()
        if box_init not in ("image", "grid"):
            raise ValueError(f"box_init is {box_init!r}; expected 'image' or 'grid'")
        start = _grid(num_queries) if box_init == "grid" else _whole_image(num_queries)
        self.boxes_cxcywh_norm = nn.Parameter(start)
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


def _whole_image(num_queries: int) -> Tensor:
    return torch.tensor([0.5, 0.5, 1.0, 1.0]).repeat(num_queries, 1)


def _grid(num_queries: int) -> Tensor:
    """Boxes of two cells' side on the first cells of a square grid, row by row."""
    cells = math.ceil(math.sqrt(num_queries))
    place = (torch.arange(cells) + 0.5) / cells
    centres = torch.cartesian_prod(place, place).flip(1)[:num_queries]
    return torch.cat((centres, torch.full_like(centres, 2 / cells)), dim=1)
