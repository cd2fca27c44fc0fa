"""The fused multi-scale deformable attention as a citizen of torch: opcheck, compile, export."""

import pytest
import torch
from ms_deform_attn_cases import relative_error
from ms_deform_attn_fused_cases import Case, in_one_layer, make_case

from queryseg.ops import ms_deform_attn_fused

CASES = {
    "float64": make_case(0),
    "float32 boxes": make_case(1, channels=32, reference_dim=4, dtype=torch.float32),
    "empty": make_case(2, queries=0, dtype=torch.float32),
    "strided": in_one_layer(make_case(3, dtype=torch.float32)),
}


def arguments(case: Case, grad: bool) -> tuple:
    value, *points = (tensor.detach().requires_grad_(grad) for tensor in case.tensors())
    return value, case.sizes, *points


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_forward_passes_opcheck(name, grad):
    operator = torch.ops.queryseg.ms_deform_attn_fused.default
    result = torch.library.opcheck(operator, arguments(CASES[name], grad))
    assert set(result.values()) == {"SUCCESS"}


@pytest.mark.parametrize("reference_grad", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_backward_passes_opcheck(name, reference_grad):
    case = CASES[name]
    batch, queries, heads = case.logits.shape[:3]
    grad = case.value.new_ones(batch, queries, heads * case.value.shape[3])
    result = torch.library.opcheck(
        torch.ops.queryseg.ms_deform_attn_fused_backward.default,
        (grad, *arguments(case, False), reference_grad),
    )
    assert set(result.values()) == {"SUCCESS"}


class Sampler(torch.nn.Module):
    """A module whose level sizes follow its input, as in a detector."""

    def forward(
        self, feature_map: torch.Tensor, reference: torch.Tensor, queries: torch.Tensor
    ) -> torch.Tensor:
        height, width = feature_map.shape[-2:]
        value = feature_map.flatten(2).transpose(1, 2).unflatten(2, (2, -1))
        offsets, logits = queries.split([12, 6], dim=-1)
        return ms_deform_attn_fused(
            value,
            [(height, width)],
            reference,
            offsets.unflatten(-1, (2, 1, 3, 2)),
            logits.unflatten(-1, (2, 1, 3)),
        )


def sampler_inputs(height: int, width: int) -> tuple[torch.Tensor, ...]:
    return torch.randn(2, 8, height, width), torch.rand(1, 6, 1, 2), torch.randn(2, 6, 18)


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
    assert "queryseg.ms_deform_attn_fused" in program.graph_module.code
