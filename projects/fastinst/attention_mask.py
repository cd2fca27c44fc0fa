"""Which pixels each query may look at: inside its predicted mask, or inside its ground truth."""

import torch
from torch import Tensor

from queryseg.matching import Assignment, MaskTargets
from queryseg.projects.fastinst.mask_cells import corner_pixels


def predicted_attention(mask_logits: Tensor) -> Tensor:
    """Look where the mask is not negative; a query without such a pixel looks everywhere.

    Args:
        mask_logits: (B, Q, h, w).

    Returns:
        (B, Q, S) bool, True where the query may look.
    """
    return open_blind_queries(mask_logits.detach().flatten(2) >= 0)


def ground_truth_attention(
    targets: MaskTargets, assignment: Assignment, num_queries: int, size: tuple[int, int]
) -> Tensor:
    """Look inside the matched ground-truth mask; everywhere without a match (equation 1).

    Masks are brought to `size` by taking the pixel at the top left of each cell (release), so a
    tiny instance can vanish; its query looks everywhere.

    Args:
        targets: ground truth of the batch.
        assignment: which query stands for which instance.
        num_queries: Q.
        size: (h, w) of the pixels.

    Returns:
        (B, Q, S) bool, True where the query may look.
    """
    small = corner_pixels(targets.masks, size)
    attend = small.new_ones((targets.num_images, num_queries, small.shape[1]))
    attend[assignment.image_idx, assignment.src_idx] = small[assignment.tgt_idx]
    return open_blind_queries(attend)


def open_blind_queries(attend: Tensor) -> Tensor:
    """Let queries look everywhere that could look nowhere; (B, Q, S) bool to the same."""
    return attend | ~attend.any(-1, keepdim=True)


def with_auxiliary(attend: Tensor, num_aux_queries: int) -> Tensor:
    """Append auxiliary queries, which look everywhere, and a place for the heads.

    Args:
        attend: (B, Q, S) bool.
        num_aux_queries: N_b.

    Returns:
        (B, 1, Q + N_b, S) bool; all heads share it.
    """
    free = attend.new_ones((len(attend), num_aux_queries, attend.shape[-1]))
    return torch.cat((attend, free), dim=1)[:, None]
