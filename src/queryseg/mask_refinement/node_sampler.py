"""The nodes that a training step refines (section 6.1)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from queryseg.ops.quadtree import QuadtreeNodes, select_nodes


def random_cells(mask: Tensor, count: int) -> Tensor:
    """Cells of a random permutation of those that are set, over and over if there are too few.

    Args:
        mask: (N, cells) bool.
        count: how many.

    Returns:
        (N, count) int64; meaningless in rows without a cell.
    """
    keys = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, 2.0)
    order = keys.topk(min(count, mask.shape[1]), dim=1, largest=False).indices
    there = mask.sum(1, keepdim=True).clamp(1, order.shape[1])
    turn = torch.arange(count, device=mask.device) % there
    return order.gather(1, turn)


class NodeSampler:
    """Takes the same number of nodes from every level, so that sequences are equally long.

    Args:
        nodes_per_level: 150 in the release, 100 in the paper.
        min_nodes: a box with fewer nodes on any level is left out, as in the release.
        draw: chooses cells, as `random_cells`.
    """

    def __init__(
        self,
        *,
        nodes_per_level: int = 150,
        min_nodes: int = 0,
        draw: Callable[[Tensor, int], Tensor] = random_cells,
    ) -> None:
        self.nodes_per_level = nodes_per_level
        self.min_nodes = min_nodes
        self.draw = draw

    def __call__(
        self, masks: Sequence[Tensor], reference_size: int
    ) -> tuple[Tensor, QuadtreeNodes]:
        """Choose nodes. The host waits for the device.

        Args:
            masks: one bool mask (N, 1, size, size) for each level, coarse to fine.
            reference_size: rows of the grid of reference tokens, 0 for none.

        Returns:
            (n,) the boxes that are refined; their nodes: references, row by row, then the levels
            in random order. Levels without a node have none. Where no box is left, all are, with
            references only.
        """
        device = masks[0].device
        counts = torch.stack([mask.flatten(1).sum(1) for mask in masks], 1)
        there = counts > 0
        boxes = (counts >= self.min_nodes).all(1).nonzero().squeeze(1)
        if not len(boxes):
            boxes, there = torch.arange(len(counts), device=device), torch.zeros_like(there)
        references = torch.arange(reference_size**2, device=device).expand(len(boxes), -1)
        flat = [mask.flatten(1)[boxes] for mask in masks]
        cells = [references, *(self.draw(one, self.nodes_per_level) for one in flat)]
        sizes = (reference_size, *(mask.shape[-1] for mask in masks))
        return boxes, _as_nodes(cells, there[boxes], sizes)


def _as_nodes(cells: Sequence[Tensor], there: Tensor, sizes: tuple[int, ...]) -> QuadtreeNodes:
    """Cells (n, t_g) of each grid to nodes, without those of levels that are not there."""
    device = there.device
    per_grid = torch.tensor([one.shape[1] for one in cells], device=device)
    level = torch.arange(len(sizes), device=device).repeat_interleave(per_grid)
    size = torch.tensor(sizes, device=device).clamp(min=1)[level]
    cell = torch.cat(list(cells), 1)
    y = cell.div(size, rounding_mode="floor")
    box = torch.arange(len(cell), device=device).unsqueeze(1).expand_as(cell)
    index = torch.stack([box, y, cell - y * size], 2)
    used = torch.cat([torch.ones_like(there[:, :1]), there], 1)
    kept = used[:, level]
    return QuadtreeNodes(index[kept], level.expand_as(cell)[kept], used.long() * per_grid, sizes)


class FullSampler:
    """Takes every node, row by row: for refiners that need whole grids (Tables 6 and 7)."""

    def __call__(
        self, masks: Sequence[Tensor], reference_size: int
    ) -> tuple[Tensor, QuadtreeNodes]:
        """Choose nodes; see `NodeSampler`."""
        size = (len(masks[0]), 1, reference_size, reference_size)
        references = torch.ones(size, dtype=torch.bool, device=masks[0].device)
        boxes = torch.arange(len(masks[0]), device=masks[0].device)
        return boxes, select_nodes([references, *masks])
