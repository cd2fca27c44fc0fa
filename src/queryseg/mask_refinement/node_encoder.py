"""What a node knows before it looks at others (section 3.3, Table 4)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from queryseg.mask_refinement.roi_pyramid import RoIPyramid
from queryseg.mask_refinement.rois import RoIs
from queryseg.ops.host_numbers import numbers_on
from queryseg.ops.quadtree import QuadtreeNodes, look_up_positions, sine_position_table

PositionUse = Literal["attention", "token", "none"]


class NodeEncoder(nn.Module):
    """Fuses features at a node, the coarse mask there, the features around it, and its position.

    Args:
        pyramid: where features come from.
        in_channels: C of the maps.
        embed_dim: width of a token.
        coarse: use the coarse mask's probability.
        position: "attention": added to queries and keys of every layer, as in the release;
            "token": added to the token once, as in the paper; or "none".
        context_dim: width that the features of the 3x3 cells around a node are compressed to; 0:
            no context, as in the release. The paper gives no width.
    """

    position_table: Tensor

    def __init__(
        self,
        *,
        pyramid: RoIPyramid,
        in_channels: int = 256,
        embed_dim: int = 256,
        coarse: bool = True,
        position: PositionUse = "attention",
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        if position not in ("attention", "token", "none"):
            raise ValueError(f'position must be "attention", "token" or "none", got {position!r}')
        self.pyramid = pyramid
        self.coarse = coarse
        self.position = position
        self.context = nn.Linear(9 * in_channels, context_dim) if context_dim else None
        # A 1x1 convolution, as the release stores it.
        self.fuse = nn.Conv2d(in_channels + int(coarse) + context_dim, embed_dim, 1)
        nn.init.xavier_uniform_(self.fuse.weight)
        grids = (pyramid.reference_size, *pyramid.grid_sizes)
        self.register_buffer("position_table", sine_position_table(grids, embed_dim), False)

    def forward(
        self,
        maps: Sequence[Tensor],
        reference_maps: Sequence[Tensor],
        rois: RoIs,
        nodes: QuadtreeNodes,
        coarse_probs: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens of nodes.

        Args:
            maps: L maps that the refined grids are pooled from.
            reference_maps: L maps that reference tokens are pooled from.
            rois: N boxes.
            nodes: T nodes; grid 0 is that of reference tokens.
            coarse_probs: (N, 1, size, size) at the resolution of every grid.

        Returns:
            (T, E) tokens, and (T, E) positions if attention is to use them.
        """
        cues = [self.pyramid.gather(maps, reference_maps, rois, nodes)]
        if self.coarse:
            cues.append(at_nodes(coarse_probs, nodes).unsqueeze(1).to(cues[0].dtype))
        if self.context is not None:
            around = self.pyramid.gather(maps, reference_maps, rois, _neighbours(nodes))
            cues.append(self.context(around.view(len(cues[0]), 9 * around.shape[1])))
        tokens = F.linear(torch.cat(cues, 1), self.fuse.weight.flatten(1), self.fuse.bias)
        if self.position == "none":
            return tokens, None
        position = look_up_positions(nodes, self.position_table).to(tokens.dtype)
        return (tokens, position) if self.position == "attention" else (tokens + position, None)


def at_nodes(maps: Sequence[Tensor], nodes: QuadtreeNodes) -> Tensor:
    """Values (T,) of one map (N, 1, size, size) a grid, each at its nodes."""
    flat = torch.cat([one.flatten() for one in maps])
    sizes = numbers_on(flat.device, nodes.grid_sizes)
    cells = sizes.square()
    first = (cells.cumsum(0) - cells) * len(maps[0])
    instance, y, x = nodes.index.unbind(1)
    size = sizes[nodes.level]
    return flat[first[nodes.level] + (instance * size + y) * size + x]


def _neighbours(nodes: QuadtreeNodes) -> QuadtreeNodes:
    """The 3x3 cells around every node, node by node; they may lie beyond the box."""
    step = torch.arange(-1, 2, device=nodes.level.device)
    zero = torch.zeros_like(step)
    steps = torch.stack(torch.meshgrid(zero[:1], step, step, indexing="ij"), -1).view(9, 3)
    index = (nodes.index.unsqueeze(1) + steps).flatten(0, 1)
    return QuadtreeNodes(
        index, nodes.level.repeat_interleave(9), nodes.counts * 9, nodes.grid_sizes
    )
