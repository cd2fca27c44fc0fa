"""Multi-scale deformable attention as a citizen of torch: opcheck, compile, export."""

import pytest
import torch
from ms_deform_attn_cases import Case, make_case, relative_error

from queryseg.ops import ms_deform_attn

CASES = {
    "float64": {"dtype": torch.float64},
    "float32": {"dtype": torch.float32, "channels": 32},
    "empty": {"dtype": torch.float32, "queries": 0},
    "one level": {"dtype": torch.float32, "levels": 1, "heads": 1},
}


def arguments(case: Case, grad: bool) -> tuple:
    value, locations, weights = (tensor.requires_grad_(grad) for tensor in case.tensors())
    return value, case.sizes, locations, weights


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_forward_passes_opcheck(name, grad):
    case = make_case(0, **CASES[name])
    result = torch.library.opcheck(torch.ops.queryseg.ms_deform_attn.default, arguments(case, grad))
    assert set(result.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", CASES)
def test_backward_passes_opcheck(name):
    case = make_case(0, **CASES[name])
    batch, queries, heads = case.locations.shape[:3]
    grad = case.value.new_ones(batch, queries, heads * case.value.shape[3])
    result = torch.library.opcheck(
        torch.ops.queryseg.ms_deform_attn_backward.default, (grad, *arguments(case, False))
    )
    assert set(result.values()) == {"SUCCESS"}


class Sampler(torch.nn.Module):
    """A module whose level sizes follow its input, as in a detector."""

    def forward(
        self, feature_map: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        height, width = feature_map.shape[-2:]
        value = feature_map.flatten(2).transpose(1, 2).unflatten(2, (2, -1))
        return ms_deform_attn(value, [(height, width)], locations, weights)


def sampler_inputs(height: int, width: int) -> tuple[torch.Tensor, ...]:
    case = make_case(height, shapes=[(height, width)], dtype=torch.float32)
    return torch.randn(2, 8, height, width), case.locations, case.weights


def test_compiles_to_one_graph_for_changing_sizes_and_trains():
    module = Sampler()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    for height, width in ((4, 5), (6, 3), (7, 7)):
        inputs = [tensor.requires_grad_() for tensor in sampler_inputs(height, width)]
        output, expected = compiled(*inputs), module(*inputs)
        assert torch.equal(output, expected)
        grads = torch.autograd.grad(output.sum(), inputs)
        for one, other in zip(grads, torch.autograd.grad(expected.sum(), inputs)):
            assert relative_error(one, other) < 1e-6


def test_compiles_under_autocast():
    module = Sampler()
    inputs = sampler_inputs(4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        output = compiled(*inputs)
        assert output.dtype == torch.bfloat16
        assert torch.equal(output, module(*inputs))


def test_exports_with_dynamic_sizes():
    height, width = torch.export.Dim("height", min=2, max=64), torch.export.Dim("width", min=2)
    program = torch.export.export(
        Sampler(), sampler_inputs(6, 5), dynamic_shapes=({2: height, 3: width}, None, None)
    )
    inputs = sampler_inputs(9, 8)
    assert torch.equal(program.module()(*inputs), Sampler()(*inputs))
    assert "queryseg.ms_deform_attn" in program.graph_module.code
