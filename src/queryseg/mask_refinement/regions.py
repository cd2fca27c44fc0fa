"""Which cells of a box are refined (sections 3.2 and 4.2, Tables 2 and 6)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


class DetectedRegion:
    """Cells whose probability reaches a threshold, inside the cells of the level before.

    A single map serves all levels: its pixels are repeated.

    Args:
        thresholds: of each level in evaluation, coarse to fine.
        train_thresholds: in training; by default the same.
        radius: also take cells within this Euclidean distance, in cells of each level (the boundary
            regions of Table 2 lie within two of a detected outline).
        dilate_finest: also take the neighbours of the finest level's cells, as the release's demo.
    """

    def __init__(
        self,
        *,
        thresholds: Sequence[float],
        train_thresholds: Sequence[float] | None = None,
        radius: float = 0.0,
        dilate_finest: bool = False,
    ) -> None:
        self.thresholds = tuple(thresholds)
        self.train_thresholds = self.thresholds if train_thresholds is None else train_thresholds
        self.radius = radius
        self.dilate_finest = dilate_finest

    def __call__(
        self,
        incoherence: Sequence[Tensor],
        coarse_probs: Tensor,
        grid_sizes: Sequence[int],
        training: bool,
    ) -> list[Tensor]:
        """Choose cells.

        Args:
            incoherence: maps of probabilities (N, 1, h, h): one for all levels, or one for each.
            coarse_probs: (N, 1, m, m); not used.
            grid_sizes: rows of each level, coarse to fine.
            training: which thresholds to take.

        Returns:
            Bool masks (N, 1, size, size), one for each level.

        Raises:
            ValueError: not one threshold for each level.
        """
        thresholds = self.train_thresholds if training else self.thresholds
        if len(thresholds) != len(grid_sizes):
            raise ValueError(
                f"{len(grid_sizes)} levels {tuple(grid_sizes)} need as many thresholds, got "
                f"{tuple(thresholds)}"
            )
        masks: list[Tensor] = []
        for number, (size, threshold) in enumerate(zip(grid_sizes, thresholds)):
            probs = incoherence[min(number, len(incoherence) - 1)]
            mask = repeat_cells(probs >= threshold, size)
            if self.radius:
                mask = _within(mask, self.radius)
            masks.append(mask & repeat_cells(masks[-1], size) if masks else mask)
        if self.dilate_finest and masks:
            masks[-1] = _within(masks[-1], 1.5)
        return masks


class FullRegion:
    """All cells of all levels (Table 2, Table 6, Table 7)."""

    def __call__(
        self,
        incoherence: Sequence[Tensor],
        coarse_probs: Tensor,
        grid_sizes: Sequence[int],
        training: bool,
    ) -> list[Tensor]:
        """Choose cells; see `DetectedRegion`."""
        count = len(coarse_probs)
        return [
            torch.ones(count, 1, size, size, dtype=torch.bool, device=coarse_probs.device)
            for size in grid_sizes
        ]


class UncertainRegion:
    """The cells of which the coarse mask is least certain, as PointRend chooses (Table 6).

    Args:
        num_cells: on each level.
    """

    def __init__(self, *, num_cells: int = 784) -> None:
        self.num_cells = num_cells

    def __call__(
        self,
        incoherence: Sequence[Tensor],
        coarse_probs: Tensor,
        grid_sizes: Sequence[int],
        training: bool,
    ) -> list[Tensor]:
        """Choose cells; see `DetectedRegion`."""
        masks = []
        for size in grid_sizes:
            probs = F.interpolate(coarse_probs, (size, size), mode="bilinear")
            doubt = -(probs - 0.5).abs().flatten(1)
            chosen = doubt.topk(min(self.num_cells, size * size), dim=1).indices
            mask = torch.zeros_like(doubt, dtype=torch.bool).scatter(1, chosen, True)
            masks.append(mask.view(-1, 1, size, size))
        return masks


def repeat_cells(mask: Tensor, size: int) -> Tensor:
    """(N, 1, h, h) to (N, 1, size, size), each cell repeated; size is a multiple of h.

    Raises:
        ValueError: it is not.
    """
    if size % mask.shape[-1]:
        raise ValueError(f"a grid of {size} rows cannot be made of a map of {mask.shape[-1]}")
    times = size // mask.shape[-1]
    return mask if times == 1 else mask.repeat_interleave(times, 2).repeat_interleave(times, 3)


def _within(mask: Tensor, radius: float) -> Tensor:
    """Cells whose centre is within `radius` cells of the centre of a set one."""
    reach = int(radius)
    at = torch.arange(-reach, reach + 1, device=mask.device)
    disc = (at.view(-1, 1).square() + at.square() <= radius * radius).float()
    return F.conv2d(mask.float(), disc[None, None], padding=reach) > 0
