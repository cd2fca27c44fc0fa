"""The comparisons used in these tests see every seeded bug, whatever the random numbers."""

import pytest
import torch
from dynamic_conv_cases import (
    BUGS,
    Case,
    expected_output_and_grads,
    make_case,
    relative_error,
    scaled,
)

SEEDS = range(50)


def case_for(seed: int) -> Case:
    case = make_case(seed, channels=12, inner=7, side=(3, 4))
    return scaled(case, 0.03)  # eps is then a hundredth of the variance


def accepts(case: Case, bug: str) -> bool:
    """Whether the float32 comparison takes the buggy implementation for a right one."""
    single = case.to(torch.float32)
    pairs = zip(single.output_and_grads(), expected_output_and_grads(single, bug), strict=True)
    return all(relative_error(one, other) < 1e-5 for one, other in pairs)


def test_the_right_implementation_is_accepted_in_every_seed():
    assert all(accepts(case_for(seed), "") for seed in SEEDS)


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_caught_in_every_seed(bug):
    assert not [seed for seed in SEEDS if accepts(case_for(seed), bug)]
