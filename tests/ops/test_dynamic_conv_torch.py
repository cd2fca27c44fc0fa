"""The dynamic convolution as a citizen of torch: opcheck, compile, export."""

import pytest
import torch
from dynamic_conv_cases import Case, make_case, operator_arguments, relative_error

from queryseg.ops import dynamic_conv

CASES = {
    "float64": {},
    "float32, rows": {"dtype": torch.float32, "channels": 33, "as_map": False},
    "no instances": {"dtype": torch.float32, "instances": 0},
    "bfloat16": {"dtype": torch.bfloat16, "side": (2, 3)},
}


def arguments_of(name: str) -> tuple:
    return operator_arguments(make_case(0, **CASES[name]))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_forward_passes_opcheck(name, grad):
    *tensors, eps = arguments_of(name)
    leaves = [tensor.detach().requires_grad_(grad) for tensor in tensors]
    result = torch.library.opcheck(torch.ops.queryseg.dynamic_conv.default, (*leaves, eps))
    assert set(result.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", CASES)
def test_backward_passes_opcheck(name):
    arguments = arguments_of(name)
    grad_output = torch.ones_like(torch.ops.queryseg.dynamic_conv(*arguments))
    result = torch.library.opcheck(
        torch.ops.queryseg.dynamic_conv_backward.default, (grad_output, *arguments)
    )
    assert set(result.values()) == {"SUCCESS"}


class Head(torch.nn.Module):
    """A module as the box heads have it: the weights are made of a query."""

    def __init__(self, channels: int = 8, inner: int = 4) -> None:
        super().__init__()
        self.parameters_of = torch.nn.Linear(channels, 2 * channels * inner)
        self.norm_in = torch.nn.LayerNorm(inner)
        self.norm_out = torch.nn.LayerNorm(channels)

    def forward(self, features: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        return dynamic_conv(
            features,
            self.parameters_of(queries),
            self.norm_in.weight,
            self.norm_in.bias,
            self.norm_out.weight,
            self.norm_out.bias,
            eps=self.norm_in.eps,
        )


def test_compiles_to_one_graph_for_changing_sizes_and_trains():
    module = Head()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    for instances, side in ((5, 7), (3, 14), (9, 4)):
        features = torch.randn(instances, 8, side, side, requires_grad=True)
        queries = torch.randn(instances, 8, requires_grad=True)
        leaves = [features, queries, *module.parameters()]
        output, expected = compiled(features, queries), module(features, queries)
        assert torch.equal(output, expected)
        grads = torch.autograd.grad(output.square().sum(), leaves)
        for one, other in zip(grads, torch.autograd.grad(expected.square().sum(), leaves)):
            assert relative_error(one, other) < 1e-6


def test_compiles_under_autocast():
    module, features, queries = Head(), torch.randn(3, 8, 7, 7), torch.randn(3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = torch.compile(module, backend="aot_eager", fullgraph=True)(features, queries)
        assert output.dtype == torch.bfloat16
        assert torch.equal(output, module(features, queries))


def test_exports_with_any_number_of_instances():
    module = Head()
    instances = torch.export.Dim("instances", min=2, max=10_000)
    program = torch.export.export(
        module,
        (torch.randn(3, 8, 7, 7), torch.randn(3, 8)),
        dynamic_shapes=({0: instances}, {0: instances}),
    )
    inputs = (torch.randn(31, 8, 7, 7), torch.randn(31, 8))
    assert torch.equal(program.module()(*inputs), module(*inputs))
    assert "queryseg.dynamic_conv" in program.graph_module.code


def test_channels_last_maps_are_read_as_they_are():
    case = make_case(0, channels=16, side=(7, 7), dtype=torch.float32)
    last = Case(case.features.contiguous(memory_format=torch.channels_last), *case.tensors[1:])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        output = last.run()
    assert relative_error(output, case.run()) < 1e-6
    names = {event.name for event in profile.events()}
    assert "queryseg::dynamic_conv" in names
    assert not names & {"aten::copy_", "aten::clone"}
