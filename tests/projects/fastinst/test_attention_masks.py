"""Attention masks from predictions and ground truth, and masks on coarse grids."""

import torch
import torch.nn.functional as F

from queryseg.matching import Assignment, MaskTargets
from queryseg.projects.fastinst.attention_mask import (
    ground_truth_attention,
    predicted_attention,
    with_auxiliary,
)
from queryseg.projects.fastinst.mask_cells import corner_pixels, touched_cells


def test_queries_look_where_their_mask_is_not_negative() -> None:
    logits = torch.tensor([[[[-1.0, 0.0], [2.0, -0.5]], [[-1.0, -1.0], [-3.0, -0.1]]]])
    attend = predicted_attention(logits.requires_grad_())
    assert attend.tolist() == [[[False, True, True, False], [True, True, True, True]]]


def test_matched_queries_look_inside_their_ground_truth() -> None:
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[0, :8, 8:] = True
    masks[1, 1:8, 1:8] = True  # lies between the corners of the cells: lost
    masks[2, 8:, :] = True
    targets = MaskTargets(torch.tensor([0, 1, 2]), masks, (2, 1))
    pairs = Assignment(
        torch.tensor([0, 0, 1]), torch.tensor([1, 3, 0]), torch.tensor([0, 1, 2]), (2, 1)
    )
    attend = ground_truth_attention(targets, pairs, num_queries=4, size=(2, 2))
    assert attend[0].int().tolist() == [[1] * 4, [0, 1, 0, 0], [1] * 4, [1] * 4]
    assert attend[1].int().tolist() == [[0, 0, 1, 1], [1] * 4, [1] * 4, [1] * 4]


def test_auxiliary_queries_look_everywhere_and_heads_share_the_mask() -> None:
    attend = torch.rand(2, 3, 5) > 0.5
    extended = with_auxiliary(attend, 2)
    assert extended.shape == (2, 1, 5, 5)
    assert torch.equal(extended[:, 0, :3], attend)
    assert extended[:, 0, 3:].all()
    assert with_auxiliary(attend, 0).shape == (2, 1, 3, 5)


def test_corner_pixels_are_nearest_neighbour_sampling() -> None:
    masks = torch.rand(4, 24, 32) > 0.5
    for size in ((3, 4), (5, 7), (24, 32)):
        expected = F.interpolate(masks[None].float(), size, mode="nearest")[0] > 0
        assert torch.equal(corner_pixels(masks, size), expected.flatten(1))


def test_touched_cells_hold_any_pixel() -> None:
    masks = torch.rand(4, 24, 32) > 0.97
    for size in ((3, 4), (5, 7)):
        expected = F.adaptive_avg_pool2d(masks.double(), size) > 0
        assert torch.equal(touched_cells(masks, size), expected.flatten(1))
