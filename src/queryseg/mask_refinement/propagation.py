"""From refined labels of nodes to masks (section 3.2, quadtree propagation)."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from queryseg.ops.host_numbers import numbers_on
from queryseg.ops.quadtree import PropagationMode, QuadtreeNodes, propagate_labels

BINOMIAL = (1.0, 6.0, 15.0, 20.0, 15.0, 6.0, 1.0)


class Propagation:
    """Writes labels level by level, each level enlarged into the next.

    Args:
        mode: how masks are enlarged: "bilinear" with aligned corners, as in the release;
            "half_pixel", bilinear with aligned cells; "nearest", as in the paper.
        leaves_only: enlarge the coarse masks at once and write the finest level alone (Table 8).
        skip_empty_levels: pass over a level on which no box of the batch has a node, as in the
            release; then a mask depends a little on the other boxes.
        blur: blur the result with a 7x7 binomial filter, as the release's demo does.
    """

    def __init__(
        self,
        *,
        mode: PropagationMode = "bilinear",
        leaves_only: bool = False,
        skip_empty_levels: bool = True,
        blur: bool = False,
    ) -> None:
        self.mode = mode
        self.leaves_only = leaves_only
        self.skip_empty_levels = skip_empty_levels
        self.blur = blur

    def __call__(
        self, probs: Tensor, nodes: QuadtreeNodes, labels: Tensor, level_totals: Sequence[int]
    ) -> Tensor:
        """Put labels into masks.

        Args:
            probs: (N, 1, m, m) coarse masks.
            nodes: T nodes; grid 0 is that of reference tokens.
            labels: (T,) refined probabilities.
            level_totals: nodes on each grid, known to the host.

        Returns:
            (N, 1, size, size) at the finest resolution.
        """
        totals = [0, *level_totals[1:]]
        if not self.skip_empty_levels:
            totals[1:] = [1] * (len(totals) - 1)
        if self.leaves_only:
            totals[:-1] = [0] * (len(totals) - 1)
        if probs.shape[-1] not in nodes.grid_sizes[1:]:
            size = nodes.grid_sizes[1]
            probs = F.interpolate(probs, (size, size), mode="bilinear", align_corners=False)
        masks = propagate_labels(probs, nodes, labels, mode=self.mode, level_totals=totals)
        return _blurred(masks) if self.blur else masks


def _blurred(masks: Tensor) -> Tensor:
    weights = numbers_on(masks.device, BINOMIAL, masks.dtype) / sum(BINOMIAL)
    masks = F.conv2d(masks, weights.view(1, 1, -1, 1), padding=(len(BINOMIAL) // 2, 0))
    return F.conv2d(masks, weights.view(1, 1, 1, -1), padding=(0, len(BINOMIAL) // 2))
