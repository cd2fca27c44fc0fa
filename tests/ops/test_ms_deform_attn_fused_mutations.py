"""The comparisons used in these tests see every seeded bug, whatever the random numbers."""

import ms_deform_attn_cases as plain
import pytest
import torch
from ms_deform_attn_cases import relative_error
from ms_deform_attn_fused_cases import BOX_BUGS, BUGS, Case, gathered, make_case

SEEDS = range(50)
PLAIN_BUGS = [bug for bug in plain.BUGS if bug not in ("lost additions", "weights of another head")]


def case_for(seed: int, reference_dim: int) -> Case:
    return make_case(
        seed,
        queries=4,
        shapes=[(5, 6), (3, 4)],
        reference_dim=reference_dim,
        dtype=torch.float32,
    )


def results(case: Case, bug: str | None) -> list[torch.Tensor]:
    """Output and gradients, from the operator (`bug` None) or from indexing with a bug."""
    inputs = [tensor.detach().requires_grad_() for tensor in case.tensors()]
    leaves = case.with_tensors(inputs)
    output = leaves.output() if bug is None else gathered(leaves, bug)
    weight = torch.linspace(-1, 1, output.numel()).view_as(output)
    return [output.detach(), *torch.autograd.grad((output * weight).sum(), inputs)]


def accepts(case: Case, bug: str) -> bool:
    """Whether the float32 comparison takes the buggy implementation for a right one."""
    pairs = zip(results(case, None), results(case, bug))
    return all(relative_error(one, other) < 2e-5 for one, other in pairs)


@pytest.mark.parametrize("bug", [*BUGS, *PLAIN_BUGS])
def test_a_seeded_bug_is_caught_in_every_seed(bug):
    assert not [seed for seed in SEEDS if accepts(case_for(seed, 2), bug)]


@pytest.mark.parametrize("bug", BOX_BUGS)
def test_a_seeded_bug_in_the_boxes_is_caught_in_every_seed(bug):
    assert not [seed for seed in SEEDS if accepts(case_for(seed, 4), bug)]


@pytest.mark.parametrize("lost", ["mean of the softmax", "points of a level", "heads"])
def test_what_a_gradient_may_lose_is_caught_in_every_seed(lost):
    for seed in SEEDS:
        case = case_for(seed, 2)
        value, reference, offsets, logits = (tensor.clone() for tensor in case.tensors())
        if lost == "mean of the softmax":
            # d softmax without the mean is that of weights whose normaliser is a constant.
            normaliser = logits.exp().sum((-2, -1), keepdim=True)
            logits.requires_grad_()
            weights = logits.exp() / normaliser
            locations = reference[:, :, None, :, None] + offsets / torch.tensor(
                [[6.0, 5.0], [4.0, 3.0]]
            ).view(2, 1, 2)
            output = plain.gathered(plain.Case(value, case.shapes, locations, weights))
            wrong, at = torch.autograd.grad(output.sum(), logits)[0], 3
        else:
            alone = case.with_tensors([value, reference.requires_grad_(), offsets, logits])
            head = gathered(alone).unflatten(-1, (2, -1))[:, :, 0]
            wrong, at = torch.autograd.grad(head.sum(), reference)[0], 1
            if lost == "points of a level":
                first = offsets.clone()
                first[..., 1:, :] = 1e3
                alone = case.with_tensors([value, reference, first, logits])
                wrong = torch.autograd.grad(gathered(alone).sum(), reference)[0]
        inputs = [tensor.detach().requires_grad_() for tensor in case.tensors()]
        grads = torch.autograd.grad(case.with_tensors(inputs).output().sum(), inputs)
        assert relative_error(grads[at], wrong) > 2e-5, seed


@pytest.mark.parametrize("reference_dim", [2, 4], ids=["points", "boxes"])
def test_the_right_implementation_is_accepted_in_every_seed(reference_dim):
    assert all(accepts(case_for(seed, reference_dim), "") for seed in SEEDS)
