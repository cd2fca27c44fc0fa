"""The comparisons used in these tests see every seeded bug, whatever the random numbers."""

import pytest
import torch
from quadtree_gather_cases import (
    BUGS,
    Case,
    flat,
    make_case,
    naive_output_and_grads,
    relative_error,
    weight_matrix,
)

SEEDS = range(50)


def case_for(seed: int) -> Case:
    case = make_case(seed, instances=6, nodes=24).to(torch.float32, torch.float32)
    # One box hangs over the border by more than a pixel, one lies on larger cells.
    case.boxes[0] = torch.tensor([-20.0, -17.0, 21.0, 30.0])
    case.boxes[1] = torch.tensor([3.0, 5.0, 61.0, 57.0])
    case.index[:6, 0] = 0
    case.index[6:12, 0] = 1
    case.index[3:5, 1:], case.level[3:5] = 0, 2
    case.level[6:9] = 0
    case.index[6:9, 1:] = torch.tensor([[0, 1], [1, 0], [1, 1]])
    case.feature_level[:2] = 0
    return case


def accepts(case: Case, bug: str) -> bool:
    """Whether the float32 comparison takes the buggy implementation for a right one."""
    pairs = zip(case.output_and_grads(), naive_output_and_grads(case, bug), strict=True)
    return all(relative_error(one, other) < 1e-5 for one, other in pairs)


def test_the_right_implementation_is_accepted_in_every_seed():
    assert all(accepts(case_for(seed), "") for seed in SEEDS)


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_caught_in_every_seed(bug):
    assert not [seed for seed in SEEDS if accepts(case_for(seed), bug)]


def test_lost_additions_to_the_gradient_are_caught_in_every_seed():
    for seed in SEEDS:
        case = case_for(seed)
        leaves = [feature.requires_grad_() for feature in case.features]
        case.gather().sum().backward()
        matrix = weight_matrix(case)
        last = torch.zeros(matrix.shape[1])  # the last node wins where it should add
        for row in matrix.float():
            last = torch.where(row != 0, row, last)
        got = flat([leaf.grad for leaf in leaves])
        assert relative_error(got, matrix.sum(0).unsqueeze(1).expand_as(got)) < 1e-5
        assert relative_error(got, last.unsqueeze(1).expand_as(got)) > 1e-5
