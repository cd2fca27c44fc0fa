"""Outlines and incoherent cells against definitions that are written out again."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from queryseg.mask_refinement.incoherent_targets import (
    incoherent_region,
    incoherent_tree,
    outline_cells,
)

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)


def blobs(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random masks, some of which touch the frame; the last two are empty and full."""
    noise = np.random.RandomState(seed).randn(count, height, width)
    masks = gaussian_filter(noise, (0, 2, 2)) > 0.05
    masks[-2], masks[-1] = False, True
    return masks


@pytest.mark.parametrize("size", [(28, 28), (17, 30), (1, 9), (2, 2)])
def test_outlines_are_what_a_dilation_adds_and_an_erosion_takes(size: tuple[int, int]) -> None:
    masks = blobs(20, *size)
    expected = [
        binary_dilation(mask, CROSS, border_value=0) != binary_erosion(mask, CROSS, border_value=1)
        for mask in masks
    ]
    ours = outline_cells(torch.as_tensor(masks).unsqueeze(1))[:, 0]
    np.testing.assert_array_equal(ours.numpy(), np.stack(expected))
    assert not ours[-2:].any()


def _equation_one(mask: np.ndarray) -> np.ndarray:
    """Equation 1, cell by cell: any of four pixels that is not as the first."""
    height, width = mask.shape[0] // 2, mask.shape[1] // 2
    cells = np.zeros((height, width), dtype=bool)
    for y in range(height):
        for x in range(width):
            four = mask[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            cells[y, x] = (four != four[0, 0]).any()
    return cells


@pytest.mark.parametrize("size", [(28, 28), (15, 22)])
def test_cells_that_one_pixel_cannot_stand_for_are_incoherent(size: tuple[int, int]) -> None:
    masks = blobs(12, *size)
    ours = incoherent_region(torch.as_tensor(masks).unsqueeze(1))[:, 0]
    np.testing.assert_array_equal(ours.numpy(), np.stack([_equation_one(m) for m in masks]))
    assert ours[:-2].any()


def test_a_level_of_the_tree_lies_inside_the_level_before() -> None:
    fine = blobs(6, 112, 112)
    levels = [fine[:, ::2, ::2], fine]  # twice as fine as 28 and 56
    tree = incoherent_tree([torch.as_tensor(one).unsqueeze(1) for one in levels])
    root = np.stack([_equation_one(mask) for mask in levels[0]])
    leaves = np.stack([_equation_one(mask) for mask in levels[1]])
    inside = leaves & root.repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(tree[0][:, 0].numpy(), root)
    np.testing.assert_array_equal(tree[1][:, 0].numpy(), inside)
    assert inside.any() and (leaves & ~inside).any()


def test_jitter_adds_the_region_moved_by_at_most_as_much() -> None:
    masks = torch.as_tensor(blobs(8, 56, 56)).unsqueeze(1)
    (plain,), (jittered,) = incoherent_tree([masks]), incoherent_tree([masks], jitter=1)
    square = np.ones((1, 3, 3), dtype=bool)
    widest = binary_dilation(plain[:, 0].numpy(), square)
    assert jittered[plain].all() and jittered.sum() > plain.sum()
    assert not (jittered[:, 0].numpy() & ~widest).any()
