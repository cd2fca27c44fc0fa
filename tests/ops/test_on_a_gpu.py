"""What only tensors that live on a device can show: addresses, streams, graphs, other devices."""

from collections.abc import Callable
from typing import Any

import dynamic_conv_cases
import instance_deform_attn_cases
import ms_deform_attn_cases
import ms_deform_attn_fused_cases
import pytest
import quadtree_gather_cases
import torch
from device_redirect import moved
from ms_deform_attn_cases import relative_error
from torch import Tensor
from torch.utils import _pytree as pytree

from queryseg.ops.ms_deform_attn import (
    ms_deform_attn_backward_reference,
    ms_deform_attn_reference,
)

on_cuda = pytest.mark.cuda
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_cuda)])
Arguments = tuple[Any, ...]


def attention(seed: int) -> Arguments:
    case = ms_deform_attn_cases.make_case(seed, channels=32, dtype=torch.float32)
    return case.value, case.sizes, case.locations, case.weights


def fused_attention(seed: int) -> Arguments:
    case = ms_deform_attn_fused_cases.make_case(seed, channels=32, reference_dim=4)
    value, *points = case.to(torch.float32).tensors()
    return value, case.sizes, *points


def instance_attention(seed: int) -> Arguments:
    case = instance_deform_attn_cases.make_case(
        seed, channels=8, heads=4, points=4, height=20, width=30
    )
    return case.to(torch.float32).arguments()


def convolution(seed: int) -> Arguments:
    # More than 48 KiB of shared memory in the backward pass.
    case = dynamic_conv_cases.make_case(seed, side=(7, 7), channels=256, inner=64)
    return dynamic_conv_cases.operator_arguments(case.to(torch.float32))


def gathering(seed: int) -> Arguments:
    case = quadtree_gather_cases.make_case(seed, channels=128, dtype=torch.float32)
    features, *nodes = quadtree_gather_cases.operator_arguments(case)
    return [feature.contiguous() for feature in features], *nodes


# Arguments by seed, and which of them get gradients.
OPERATORS: dict[str, tuple[Callable[[int], Arguments], tuple[int, ...]]] = {
    "ms_deform_attn": (attention, (0, 2, 3)),
    "ms_deform_attn_fused": (fused_attention, (0, 2, 3, 4)),
    "instance_deform_attn": (instance_attention, (0, 1)),
    "dynamic_conv": (convolution, (0, 1, 2, 3, 4, 5)),
    "quadtree_gather": (gathering, (0,)),
}
every_operator = pytest.mark.parametrize("name", OPERATORS)


def leaves_of(name: str, arguments: Arguments) -> list[Tensor]:
    """The tensors that get gradients."""
    return pytree.tree_leaves([arguments[i] for i in OPERATORS[name][1]])


def results(name: str, arguments: Arguments) -> list[Tensor]:
    """Output and gradients."""
    leaves = [leaf.requires_grad_() for leaf in leaves_of(name, arguments)]
    output = getattr(torch.ops.queryseg, name)(*arguments)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad_of(output))]


def grad_of(output: Tensor) -> Tensor:
    """Small whole numbers, the same on every device."""
    numbers = torch.arange(output.numel(), device=output.device) % 7 - 3
    return numbers.view_as(output).to(output.dtype)


def assert_close(got: list[Tensor], expected: list[Tensor]) -> None:
    """Equal but for the order of sums."""
    assert len(got) == len(expected)
    for one, other in zip(got, expected):
        assert relative_error(one.cpu(), other.cpu()) < 1e-5


@every_operator
@DEVICES
def test_arrays_may_begin_at_any_element(name, device):
    make, _ = OPERATORS[name]

    def shifted(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        room = torch.empty(leaf.numel() + 1, dtype=leaf.dtype, device=leaf.device)
        return room[1:].view(leaf.shape).copy_(leaf)

    arguments = pytree.tree_map(shifted, moved(make(0), device))
    assert all(leaf.data_ptr() % 16 for leaf in leaves_of(name, arguments))
    assert_close(results(name, arguments), results(name, moved(make(0), device)))


@every_operator
@on_cuda
def test_kernels_and_zero_fills_run_on_the_current_stream(name):
    make, _ = OPERATORS[name]
    expected = results(name, moved(make(0), "cuda"))
    given, empty = moved(make(0), "cuda"), pytree.tree_map(zeros, moved(make(0), "cuda"))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # whoever does not wait for it reads zeros
        for to, source in zip(leaves_of(name, empty), leaves_of(name, given)):
            to.copy_(source)
        arguments = with_leaves(name, given, leaves_of(name, empty))
        found = results(name, arguments)
    stream.synchronize()
    assert_close(found, expected)


def zeros(leaf: Any) -> Any:
    return torch.zeros_like(leaf) if isinstance(leaf, Tensor) else leaf


def with_leaves(name: str, arguments: Arguments, leaves: list[Tensor]) -> Arguments:
    """The same arguments with other tensors that get gradients."""
    rest, result = iter(leaves), list(arguments)
    for i in OPERATORS[name][1]:
        result[i] = pytree.tree_map(lambda _: next(rest), arguments[i])
    return tuple(result)


@every_operator
@on_cuda
def test_a_cuda_graph_of_both_passes_can_be_replayed_on_other_numbers(name):
    make, _ = OPERATORS[name]
    arguments = moved(make(0), "cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            results(name, arguments)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = results(name, arguments)
    with torch.no_grad():
        for leaf in leaves_of(name, arguments):
            leaf.copy_(leaf.flip(0) / 2)
    graph.replay()
    torch.cuda.synchronize()
    assert_close(found, results(name, moved(arguments, "cuda")))


@every_operator
@on_cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_need_not_be_on_the_current_device(name):
    make, _ = OPERATORS[name]
    expected = results(name, moved(make(0), "cuda:0"))
    with torch.cuda.device(0):
        found = results(name, moved(make(0), "cuda:1"))
        assert torch.cuda.current_device() == 0
    assert all(one.device == torch.device("cuda:1") for one in found)
    assert_close(found, expected)


@every_operator
@on_cuda
def test_atomic_additions_are_refused_where_determinism_is_demanded(name):
    make, _ = OPERATORS[name]
    torch.use_deterministic_algorithms(True)
    try:
        if name == "dynamic_conv":
            once, again = (results(name, moved(make(0), "cuda")) for _ in range(2))
            assert all(torch.equal(one, other) for one, other in zip(once, again))
        else:
            with pytest.raises(RuntimeError, match="adds atomically"):
                results(name, moved(make(0), "cuda"))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("channels", [1, 4, 8, 12, 16, 24, 32, 40, 48, 64, 96, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@DEVICES
def test_heads_of_any_width_in_any_dtype_equal_the_reference(device, dtype, channels):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    case = ms_deform_attn_cases.make_case(channels, channels=channels, queries=40).to(dtype, wide)
    arguments = case.value, case.sizes, case.locations, case.weights
    found = results("ms_deform_attn", moved(arguments, device))
    exact = [tensor.detach().double() for tensor in case.tensors()]
    exact.insert(1, case.sizes)
    output = ms_deform_attn_reference(*exact)
    expected = [output, *ms_deform_attn_backward_reference(grad_of(output), *exact)]
    limits = {torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1e-2}
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one.cpu(), other) < limits.get(one.dtype, 2e-5)
