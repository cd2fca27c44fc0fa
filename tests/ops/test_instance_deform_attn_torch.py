"""Per-instance deformable attention as a citizen of torch: opcheck, compile, export."""

import pytest
import torch
from instance_deform_attn_cases import Case, make_case, relative_error

from queryseg.ops.instance_deform_attn import instance_deform_attn

CASES = {
    "float64": {"dtype": torch.float64},
    "SOIT": {"dtype": torch.float32, "channels": 8, "heads": 4, "points": 4},
    "no instances": {"dtype": torch.float32, "instances": 0},
    "whole maps": {"dtype": torch.float32, "padded": False, "heads": 1},
}


def arguments(case: Case, grad: bool) -> tuple:
    return case.trainable().arguments() if grad else case.arguments()


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_forward_passes_opcheck(name, grad):
    result = torch.library.opcheck(
        torch.ops.queryseg.instance_deform_attn.default,
        arguments(make_case(0, **CASES[name]), grad),
    )
    assert set(result.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", CASES)
def test_backward_passes_opcheck(name):
    case = make_case(0, **CASES[name])
    grad = torch.ones_like(case.call())
    result = torch.library.opcheck(
        torch.ops.queryseg.instance_deform_attn_backward.default, (grad, *case.arguments())
    )
    assert set(result.values()) == {"SUCCESS"}


def test_second_derivatives_are_refused():
    case = make_case(0).trainable()
    (grad,) = torch.autograd.grad(case.call().square().sum(), case.mask_feats, create_graph=True)
    with pytest.raises(RuntimeError, match="instance_deform_attn_backward has no derivative"):
        grad.sum().backward()


class MaskHead(torch.nn.Module):
    """A module whose map follows its input."""

    def forward(
        self, mask_feats: torch.Tensor, weights: torch.Tensor, rows: torch.Tensor, columns
    ) -> torch.Tensor:
        return instance_deform_attn(mask_feats, weights, rows, columns, heads=2, points=2)


def head_inputs(height: int, width: int) -> list[torch.Tensor]:
    case = make_case(0, batch=1, height=height, width=width, dtype=torch.float32).trainable()
    return [case.mask_feats, case.dynamic_weights, case.row_codes, case.column_codes]


def test_compiles_to_one_graph_for_changing_sizes_and_trains():
    module = MaskHead()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    for height, width in ((4, 5), (6, 3)):
        inputs = head_inputs(height, width)
        output, expected = compiled(*inputs), module(*inputs)
        assert torch.equal(output, expected)
        grads = torch.autograd.grad(output.sum(), inputs[:2])
        for one, other in zip(grads, torch.autograd.grad(expected.sum(), inputs[:2])):
            assert relative_error(one, other) < 1e-6


def test_exports():
    inputs = tuple(tensor.detach() for tensor in head_inputs(6, 5))
    program = torch.export.export(MaskHead(), inputs)
    assert torch.equal(program.module()(*inputs), MaskHead()(*inputs))
    assert "queryseg.instance_deform_attn" in program.graph_module.code
