"""The dynamic convolution against its definition with the library's layer norm."""

import pytest
import torch
from dynamic_conv_cases import (
    Case,
    expected_output_and_grads,
    make_case,
    operator_arguments,
    random_case,
    relative_error,
)

from queryseg.ops.dynamic_conv import (
    dynamic_conv_backward_reference,
    dynamic_conv_reference,
)


def test_equals_the_definition_and_its_gradient_for_any_shape():
    for seed in range(220):
        case = random_case(seed)
        got, expected = case.output_and_grads(), expected_output_and_grads(case)
        for one, other in zip(got, expected, strict=True):
            assert one.shape == other.shape
            assert relative_error(one, other) < 1e-12, seed


def test_pure_torch_equals_the_definition_and_its_gradient():
    for seed in range(60):
        case = random_case(seed)
        expected, *grads = expected_output_and_grads(case)
        assert relative_error(dynamic_conv_reference(*operator_arguments(case)), expected) < 1e-12
        weight = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).cos().mul(3).sin()
        *got, shares = dynamic_conv_backward_reference(
            weight.view_as(expected), *operator_arguments(case)
        )
        got += shares.sum(0).split([len(norm) for norm in case.tensors[2:]])
        for one, other in zip(got, grads, strict=True):
            assert relative_error(one, other) < 1e-12, seed


def test_the_definition_scalar_by_scalar():
    case = make_case(0, instances=2, side=(2, 3), channels=3, inner=2)
    output = case.run()
    for n in range(2):
        weights = case.dynamic_weights[n].tolist()
        for t in range(6):
            x = [float(case.features[n, c, t // 3, t % 3]) for c in range(3)]
            y = [sum(x[c] * weights[2 * c + j] for c in range(3)) for j in range(2)]
            y = normed(y, case.norm_in_weight, case.norm_in_bias)
            z = [sum(y[j] * weights[6 + 3 * j + c] for j in range(2)) for c in range(3)]
            z = normed(z, case.norm_out_weight, case.norm_out_bias)
            assert output[n, t].tolist() == pytest.approx(z, abs=1e-12)


def normed(x: list[float], weight: torch.Tensor, bias: torch.Tensor) -> list[float]:
    mean = sum(x) / len(x)
    variance = sum((one - mean) ** 2 for one in x) / len(x)
    scale = (variance + 1e-5) ** -0.5
    return [
        max(0.0, (one - mean) * scale * w + b)
        for one, w, b in zip(x, weight.tolist(), bias.tolist(), strict=True)
    ]


def test_both_layouts_give_the_same_and_gradients_in_their_own():
    as_map = make_case(1, channels=32, inner=16, side=(7, 7))
    as_rows = Case(as_map.features.flatten(2).mT.contiguous(), *as_map.tensors[1:])
    output, grad, *others = as_map.output_and_grads()
    row_output, row_grad, *row_others = as_rows.output_and_grads()
    assert relative_error(row_output, output) < 1e-14
    assert relative_error(row_grad.mT.reshape(grad.shape), grad) < 1e-13
    for one, other in zip(row_others, others, strict=True):
        assert relative_error(one, other) < 1e-13
