"""Numerical gradient checks of the fused multi-scale deformable attention."""

import pytest
import torch
from ms_deform_attn_fused_cases import make_case
from torch.autograd import gradcheck


def check(seed: int, channels: int, fast: bool, **kwargs: int) -> None:
    case = make_case(seed, channels=channels, reference_dim=2 + 2 * (seed % 2), **kwargs)
    inputs = [tensor.requires_grad_() for tensor in case.tensors()]
    assert gradcheck(
        lambda *tensors: case.with_tensors(tensors).output(),
        inputs,
        atol=1e-6,
        rtol=1e-4,
        fast_mode=fast,
    )


@pytest.mark.parametrize("seed", range(10))
def test_gradients_equal_finite_differences(seed):
    check(seed, 4, fast=False, batch=2, queries=2)


@pytest.mark.parametrize("channels", [8, 32])
def test_gradients_of_wide_heads_equal_finite_differences(channels):
    check(0, channels, fast=False, batch=2, queries=2, points=2)


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_projected_gradients_equal_finite_differences_on_many_shapes(first):
    for seed in range(first, first + 10):
        check(
            seed,
            (1, 4, 30, 32, 71)[seed % 5],
            fast=True,
            batch=1 + seed % 3,
            queries=1 + seed % 7,
            heads=1 + seed % 2,
            levels=1 + seed % 5,
            points=1 + seed % 8,
        )


def test_second_derivatives_are_refused():
    case = make_case(0)
    inputs = [tensor.requires_grad_() for tensor in case.tensors()]
    output = case.with_tensors(inputs).output()
    grads = torch.autograd.grad(output.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="ms_deform_attn_fused_backward has no derivative"):
        grads[0].sum().backward()


@pytest.mark.parametrize("wanted", range(4))
def test_only_the_inputs_that_require_gradients_get_them(wanted):
    case = make_case(0)
    case.tensors()[wanted].requires_grad_()
    case.output().sum().backward()
    assert [tensor.grad is not None for tensor in case.tensors()] == [
        index == wanted for index in range(4)
    ]
