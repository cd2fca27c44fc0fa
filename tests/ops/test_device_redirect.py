"""`--device` sends the operators of every test to the device."""

import pytest
import quadtree_gather_cases
import torch
from device_redirect import moved, operator_names, redirected
from ms_deform_attn_cases import make_case

from queryseg.ops import ms_deform_attn

pytestmark = pytest.mark.host


def test_every_operator_and_its_backward_are_redirected():
    names = set(operator_names())
    for name in ("ms_deform_attn", "instance_deform_attn", "quadtree_gather"):
        assert {name, f"{name}_backward"} <= names


def zeros(name: str, device: str, arguments: tuple) -> object:
    """A device whose kernels return zeros of the right shapes."""
    result = getattr(torch.ops.queryseg, name)(*moved(arguments, device))
    if isinstance(result, torch.Tensor):
        return torch.zeros(result.shape, dtype=result.dtype)
    return tuple(torch.zeros(one.shape, dtype=one.dtype) for one in result)


def test_forward_and_backward_reach_the_device_and_only_while_redirected():
    case = make_case(0)
    inputs = [tensor.requires_grad_() for tensor in case.tensors()]

    def run() -> list[torch.Tensor]:
        output = ms_deform_attn(inputs[0], case.shapes, inputs[1], inputs[2])
        return [output, *torch.autograd.grad(output.sum(), inputs)]

    with redirected("meta", zeros) as calls:
        there = run()
    assert calls == ["ms_deform_attn", "ms_deform_attn_backward"]
    assert not any(tensor.any() for tensor in there)
    assert all(tensor.any() for tensor in run())
    assert len(calls) == 2


def test_tensors_in_lists_are_moved_and_keep_their_layout():
    case = quadtree_gather_cases.make_case(0)
    features, *nodes = quadtree_gather_cases.operator_arguments(case)
    there = moved((features, *nodes, 3), "meta")
    assert [one.stride() for one in there[0]] == [one.stride() for one in features]
    assert {one.device.type for one in (*there[0], *there[1:5])} == {"meta"}
    assert there[5] == 3
