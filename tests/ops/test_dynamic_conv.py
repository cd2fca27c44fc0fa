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


def test_float32_keeps_its_accuracy():
    for seed in range(20):
        case = make_case(seed, channels=64, inner=32, side=(7, 7))
        # Measured: 3e-7 to 3e-6; the ReLU's gradient flips where its input rounds to the other
        # side of zero, which no entry of these seeds does.
        for one, other in zip(
            case.to(torch.float32).output_and_grads(), case.output_and_grads(), strict=True
        ):
            assert relative_error(one, other) < 1e-5


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.bfloat16, 5e-3), (torch.float16, 1e-3)])
def test_half_precision_rounds_nothing_but_arguments_and_results(dtype, accuracy):
    for seed in range(20):
        case = make_case(seed, channels=71 - seed, inner=33, dtype=torch.float32)
        half = case.to(dtype, torch.float32)
        got = half.output_and_grads()
        assert [one.dtype for one in got] == 3 * [dtype] + 4 * [torch.float32]
        expected = half.to(torch.float32).output_and_grads()
        for one, other in zip(got, expected, strict=True):
            assert relative_error(one, other) < accuracy


def test_autocast_rounds_features_and_weights_but_not_the_norms():
    case = make_case(0, channels=32, inner=16, dtype=torch.float32)
    case.norm_out_weight = case.norm_out_weight + 1e-3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = case.run()
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, case.to(torch.bfloat16, torch.float32).run())
    rounded = case.to(torch.bfloat16)
    # The check has teeth: norms rounded to bfloat16 give another result.
    assert not torch.equal(output, rounded.run())


def test_norms_may_have_any_floating_dtype():
    case = make_case(0, dtype=torch.float32)
    half_norms = Case(*case.tensors[:2], *(norm.half() for norm in case.tensors[2:]))
    same = Case(*case.tensors[:2], *(norm.half().float() for norm in case.tensors[2:]))
    got, expected = half_norms.output_and_grads(), same.output_and_grads()
    assert torch.equal(got[0], expected[0])
    assert all(grad.dtype == torch.float16 for grad in got[3:])
    for one, other in zip(got[1:], expected[1:], strict=True):
        assert relative_error(one, other) < 1e-3


@pytest.mark.parametrize("sizes", [(4, 3), (8, 4), (32, 5)], ids=str)
def test_gradcheck(sizes):
    channels, inner = sizes
    for seed in range(10 if channels == 4 else 1):
        case = make_case(
            seed, channels=channels, inner=inner, instances=2, side=(2, 1), as_map=seed % 2 == 0
        )
        case.eps = 0.1  # else curved within the step of the differences
        leaves = [tensor.requires_grad_() for tensor in case.tensors]
        assert torch.autograd.gradcheck(
            lambda *tensors: Case(*tensors, 0.1).run(), leaves, atol=1e-6, rtol=1e-4
        )


def test_gradcheck_in_fast_mode_for_any_shape():
    for seed in range(50):
        case = random_case(seed)
        if case.features.numel() == 0:
            continue
        leaves = [tensor.detach().requires_grad_() for tensor in case.tensors]
        assert torch.autograd.gradcheck(
            lambda *tensors: Case(*tensors, 0.1).run(),
            leaves,
            atol=1e-6,
            rtol=1e-4,
            fast_mode=True,
        )


def test_only_what_requires_a_gradient_gets_one():
    case = make_case(0)
    case.dynamic_weights.requires_grad_()
    case.run().sum().backward()
    assert case.dynamic_weights.grad is not None
    assert all(tensor.grad is None for tensor in (case.features, *case.tensors[2:]))


def test_second_derivatives_are_refused():
    case = make_case(0)
    features = case.features.requires_grad_()
    (grad,) = torch.autograd.grad(case.run().square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives are not supported"):
        grad.sum().backward()


def test_nothing_but_the_arguments_is_kept_for_the_backward_pass():
    case = make_case(0, dtype=torch.float32)
    leaves = [tensor.requires_grad_() for tensor in case.tensors]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        Case(*leaves).run()
    assert {tensor.data_ptr() for tensor in kept} <= {tensor.data_ptr() for tensor in leaves}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_what_is_not_finite_stays_in_its_position(value):
    clean = make_case(0, instances=2, channels=20, inner=7, dtype=torch.float32)
    dirty = make_case(0, instances=2, channels=20, inner=7, dtype=torch.float32)
    dirty.features[1, 3, 1, 1] = value
    output, expected = dirty.run(), clean.run()
    changed = torch.zeros(2, 9, dtype=torch.bool)
    changed[1, 4] = True
    assert torch.equal(output[~changed], expected[~changed])
    assert torch.equal(output.isnan(), dynamic_conv_reference(*operator_arguments(dirty)).isnan())


def test_equal_channels_have_no_direction():
    case = make_case(0, channels=6, inner=5)
    case.features.zero_()
    output, *grads = case.output_and_grads()
    expected, *expected_grads = expected_output_and_grads(case)
    assert relative_error(output, expected) < 1e-12
    assert all(torch.isfinite(grad).all() for grad in grads)
    for one, other in zip(grads, expected_grads, strict=True):
        assert relative_error(one, other) < 1e-12


@pytest.mark.host
def test_results_do_not_depend_on_runs_or_threads():
    case = make_case(3, instances=23, channels=48, inner=20, side=(7, 7), dtype=torch.float32)
    threads = torch.get_num_threads()
    expected = case.output_and_grads()
    try:
        for number in (1, 2, 1, 3, 2, 1, 2, 3, 2, 1):
            torch.set_num_threads(number)
            for one, other in zip(case.output_and_grads(), expected, strict=True):
                assert torch.equal(one, other)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("instances", [1, 7, 154])
def test_any_number_of_instances(instances):
    case = make_case(instances, instances=instances, channels=19, inner=6)
    for one, other in zip(case.output_and_grads(), expected_output_and_grads(case), strict=True):
        assert relative_error(one, other) < 1e-12


def test_the_heads_of_the_papers():
    """49 and 196 positions of 256 channels, d = 64."""
    for side, as_map in ((7, True), (14, True), (14, False)):
        case = make_case(side, side=(side, side), channels=256, inner=64, as_map=as_map)
        for one, other in zip(
            case.output_and_grads(), expected_output_and_grads(case), strict=True
        ):
            assert relative_error(one, other) < 1e-12


def test_more_than_2_to_the_31_elements_have_the_right_shapes():
    features = torch.empty(2**20, 64, 7, 7, device="meta")
    norms = (torch.empty(8, device="meta"),) * 2 + (torch.empty(64, device="meta"),) * 2
    arguments = (features, torch.empty(2**20, 1024, device="meta"), *norms, 1e-5)
    output = torch.ops.queryseg.dynamic_conv(*arguments)
    assert output.shape == (2**20, 49, 64)
    grads = torch.ops.queryseg.dynamic_conv_backward(output, *arguments)
    assert [grad.shape for grad in grads] == [features.shape, arguments[1].shape, (2**20, 144)]
