"""The comparisons used in these tests see every seeded bug, whatever the random numbers."""

import pytest
import torch
from ms_deform_attn_cases import BUGS, Case, gathered, make_case, relative_error

from queryseg.ops import ms_deform_attn

SEEDS = range(50)


def case_for(seed: int) -> Case:
    return make_case(seed, queries=8, shapes=[(5, 6), (3, 4)]).to(torch.float32, torch.float32)


def output_and_value_grad(case: Case, bug: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """From the operator (`bug` None) or from indexing with a bug."""
    value = case.value.detach().requires_grad_()
    inputs = Case(value, case.shapes, case.locations, case.weights)
    if bug is None:
        output = ms_deform_attn(value, case.shapes, case.locations, case.weights)
    else:
        output = gathered(inputs, bug)
    weight = torch.linspace(-1, 1, output.numel()).view_as(output)
    (grad,) = torch.autograd.grad((output * weight).sum(), value)
    return output.detach(), grad


def accepts(case: Case, bug: str) -> bool:
    """Whether the float32 comparison takes the buggy implementation for a right one."""
    got = output_and_value_grad(case, None)
    wanted = output_and_value_grad(case, bug)
    return all(relative_error(one, other) < 1e-5 for one, other in zip(got, wanted))


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug != "lost additions"])
def test_a_seeded_bug_is_caught_in_every_seed(bug):
    assert not [seed for seed in SEEDS if accepts(case_for(seed), bug)]


def overwritten_value_grad(case: Case) -> torch.Tensor:
    """As a scatter would leave it that overwrites where it should add: the last point wins."""
    grad = torch.zeros_like(case.value)
    for point in range(case.weights.shape[-1]):
        alone = Case(
            case.value.clone().requires_grad_(),
            case.shapes,
            case.locations[..., [point], :],
            case.weights[..., [point]],
        )
        (part,) = torch.autograd.grad(gathered(alone).sum(), alone.value)
        grad = torch.where(part != 0, part, grad)
    return grad


def test_lost_additions_to_the_value_gradient_are_caught_in_every_seed():
    for seed in SEEDS:
        case = case_for(seed)
        value = case.value.clone().requires_grad_()
        ms_deform_attn(value, case.shapes, case.locations, case.weights).sum().backward()
        assert relative_error(value.grad, overwritten_value_grad(case)) > 1e-5, seed


def test_the_right_implementation_is_accepted_in_every_seed():
    assert all(accepts(case_for(seed), "") for seed in SEEDS)
