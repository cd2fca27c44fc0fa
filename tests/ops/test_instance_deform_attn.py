"""Values and gradients of per-instance deformable attention."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from instance_deform_attn_cases import (
    BUGS,
    Case,
    gathered,
    make_case,
    naive,
    random_case,
    relative_error,
)
from torch.autograd import gradcheck

from queryseg.ops.instance_deform_attn import (
    instance_deform_attn,
    instance_deform_attn_backward_reference,
    instance_deform_attn_reference,
)
from queryseg.ops.ms_deform_attn import ms_deform_attn

SOIT = {"channels": 8, "heads": 4, "points": 4}


def gradients(case: Case, output: torch.Tensor) -> tuple[torch.Tensor, ...]:
    weight = torch.arange(output.numel(), dtype=output.dtype).add(0.5).sin().view_as(output)
    return torch.autograd.grad((output * weight).sum(), (case.mask_feats, case.dynamic_weights))


@pytest.mark.parametrize("name", ["SOIT", "odd head width", "one head", "one point"])
def test_output_equals_the_definition(name):
    sizes = {
        "SOIT": {**SOIT, "width": 18},
        "odd head width": {"channels": 9, "heads": 3, "row_channels": 2},
        "one head": {"heads": 1, "points": 5},
        "one point": {"heads": 4, "points": 1, "padded": False},
    }
    case = make_case(0, **sizes[name])
    assert relative_error(case.call(), naive(case)) < 1e-12


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_output_and_gradients_equal_indexing_on_any_shape_and_layout(first):
    for seed in range(first, first + 50):
        case = random_case(seed).trainable()
        output = case.call()
        if case.mask_feats.shape[0] == 0:
            assert output.shape[0] == 0
            continue
        expected = gathered(case)
        assert relative_error(output, expected) < 1e-12, seed
        for one, other in zip(gradients(case, output), gradients(case, expected)):
            assert relative_error(one, other) < 1e-12, seed


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_pure_torch_equals_the_operator(first):
    for seed in range(first, first + 20):
        case = random_case(seed)
        arguments = case.arguments()
        output = torch.ops.queryseg.instance_deform_attn(*arguments)
        assert relative_error(output, instance_deform_attn_reference(*arguments)) < 1e-12
        grad = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        got = torch.ops.queryseg.instance_deform_attn_backward(grad, *arguments)
        expected = instance_deform_attn_backward_reference(grad, *arguments)
        for one, other in zip(got, expected):
            assert relative_error(one, other) < 1e-12, seed


# Samples near cell borders may flip cell in float32, which moves their gradient.
@pytest.mark.parametrize("sizes", [SOIT, {"channels": 6, "heads": 3, "points": 3}])
def test_float32_stays_close_to_float64(sizes):
    case = make_case(1, height=12, width=37, instances=4, **sizes)
    narrow, wide = case.to(torch.float32).trainable(), case.trainable()
    output, expected = narrow.call(), wide.call()
    assert output.dtype == torch.float32
    assert relative_error(output, expected) < 1e-5
    for one, other in zip(gradients(narrow, output), gradients(wide, expected)):
        assert relative_error(one, other) < 5e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_are_computed_with_in_float32(dtype, same_gradient):
    case = make_case(2, height=9, width=21, **SOIT).to(torch.float32, dtype).trainable()
    exact = case.to(torch.float32).trainable()
    output, expected = case.call(), exact.call()
    assert output.dtype == torch.float32
    assert torch.equal(output, expected)
    feats, weights = gradients(case, output)
    expected_feats, expected_weights = gradients(exact, expected)
    assert feats.dtype == dtype
    assert same_gradient(feats, expected_feats.to(dtype))
    assert same_gradient(weights, expected_weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    case = make_case(3, **SOIT).to(torch.float32)
    expected = case.call()
    with torch.autocast("cpu", dtype=dtype):
        output = case.call()
    assert output.dtype == torch.float32
    assert torch.equal(output, expected)


def test_rounded_weights_would_move_the_samples():
    case = make_case(3, height=20, width=40, **SOIT).to(torch.float32)
    expected = case.call()
    case.dynamic_weights = case.dynamic_weights.bfloat16().float()
    assert relative_error(case.call(), expected) > 5e-3


@pytest.mark.parametrize("seed", range(10))
def test_gradients_equal_finite_differences(seed):
    case = make_case(seed, batch=2, instances=2, height=2, width=3, points=2).trainable()

    def run(feats: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return instance_deform_attn(
            feats,
            weights,
            case.row_codes,
            case.column_codes,
            heads=case.heads,
            points=case.points,
            image_index=case.image_index,
            valid_sizes=case.valid_sizes,
        )

    inputs = (case.mask_feats, case.dynamic_weights)
    assert gradcheck(run, inputs, eps=1e-7, atol=1e-6, rtol=1e-4, nondet_tol=0.0)


@pytest.mark.parametrize("head_channels", [4, 8, 32])
def test_gradcheck_of_wide_heads(head_channels):
    heads = 2 if head_channels == 4 else 1
    case = make_case(
        head_channels,
        instances=2,
        height=2,
        width=3,
        channels=heads * head_channels,
        heads=heads,
        points=1,
    ).trainable()

    def run(feats: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return replace(case, mask_feats=feats, dynamic_weights=weights).call()

    inputs = (case.mask_feats, case.dynamic_weights)
    assert gradcheck(run, inputs, eps=1e-7, atol=1e-6, rtol=1e-4)


def test_projected_gradients_equal_finite_differences_on_many_shapes():
    for seed in range(50):
        heads = 1 + seed % 4
        case = make_case(
            seed,
            batch=1 + seed % 2,
            instances=1 + seed % 3,
            height=1 + seed % 3,
            width=1 + seed % 5,
            channels=heads * (1 + seed % 3),
            row_channels=seed % 2,
            heads=heads,
            points=1 + seed % 4,
        ).trainable()
        inputs = (case.mask_feats, case.dynamic_weights)

        def run(feats: torch.Tensor, weights: torch.Tensor, case: Case = case) -> torch.Tensor:
            return replace(case, mask_feats=feats, dynamic_weights=weights).call()

        assert gradcheck(run, inputs, eps=1e-7, atol=1e-6, rtol=1e-4, fast_mode=True), seed


def case_for_bugs(seed: int) -> Case:
    case = make_case(seed, instances=4, height=9, width=4, **SOIT).to(torch.float32)
    case.valid_sizes = torch.tensor([[7, 3], [5, 2]])
    case.image_index = torch.tensor([1, 0, 1, 0])
    return case


def accepts(case: Case, bug: str) -> bool:
    """Whether the float32 comparison takes the buggy implementation for a right one."""
    return relative_error(case.call(), gathered(case, bug)) < 2e-5


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_caught_in_every_seed(bug):
    assert not [seed for seed in range(50) if accepts(case_for_bugs(seed), bug)]


def test_the_right_implementation_is_accepted_in_every_seed():
    assert all(accepts(case_for_bugs(seed), "") for seed in range(50))


def test_lost_additions_to_the_feature_gradient_are_caught_in_every_seed():
    for seed in range(50):
        case = case_for_bugs(seed).trainable()
        complete = gradients(case, case.call())[0]
        parts = []
        for n in range(4):
            alone = case_for_bugs(seed)
            keep = torch.zeros(4, 1, 1)
            keep[n] = 1
            alone = alone.trainable()
            parts.append(gradients(alone, alone.call() * keep)[0])
        last = torch.zeros_like(complete)
        for part in parts:
            last = torch.where(part != 0, part, last)
        assert relative_error(sum(parts), complete) < 1e-5
        assert relative_error(last, complete) > 1e-3, seed


@pytest.mark.host
def test_results_do_not_depend_on_the_run():
    case = make_case(5, instances=5, height=13, width=37, **SOIT).to(torch.float32).trainable()
    output = case.call()
    grads = gradients(case, output)
    threads = torch.get_num_threads()
    try:
        for count in [threads] * 5 + [1, 2, 3]:
            torch.set_num_threads(count)
            again = case.call()
            assert torch.equal(again, output)
            both = [gradients(case, case.call()) for _ in range(2)]
            for one, other, first in zip(*both, grads):
                assert torch.equal(one, other)
                assert relative_error(one, first) < (1e-7 if count == threads else 1e-5)
    finally:
        torch.set_num_threads(threads)


def test_nan_features_reach_the_logits_of_their_pixel():
    case = make_case(6, padded=False, **SOIT).to(torch.float32)
    case.mask_feats[0, 1, 2, 3] = math.nan
    case.image_index[:] = torch.tensor([0, 1, 0])
    output = case.call()
    assert output[::2, 1, 2].isnan().all()
    assert output[1].isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_offsets_that_lead_nowhere_sample_zero(bad):
    case = make_case(7, heads=1, points=1, padded=False)
    rows = 2 * case.mask_feats.shape[3]
    case.dynamic_weights[:, rows : rows + 2] = bad
    out_bias = case.dynamic_weights[:, -1].view(-1, 1, 1)
    assert torch.equal(case.call(), out_bias.expand(-1, 4, 5))


@pytest.mark.parametrize("batch", [1, 7, 154])
def test_any_batch_size_gives_each_image_its_own_logits(batch):
    case = make_case(8, batch=batch, instances=batch, height=3, width=3)
    case.image_index = torch.arange(batch).flip(0)
    assert relative_error(case.call(), gathered(case)) < 1e-12


def test_image_index_may_be_left_out_for_one_image():
    case = make_case(9, batch=1)
    expected = case.call()
    case.image_index = None
    assert torch.equal(case.call(), expected)


def test_nothing_but_the_inputs_is_saved_for_the_backward_pass():
    case = make_case(10, height=20, width=30, instances=5, **SOIT).to(torch.float32).trainable()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda one: saved.append(one) or one, lambda x: x
    ):
        case.call()
    inputs = {tensor.data_ptr() for tensor in case.arguments()[:6]}
    assert {tensor.data_ptr() for tensor in saved} == inputs


def sine_codes(centres: torch.Tensor, count: int, size: int) -> torch.Tensor:
    """SOIT's codes of 1-based positions relative to the instances' centres, (N, size + 1, 4)."""
    position = torch.arange(1, size + 1).clamp(max=count)
    position = torch.cat([position, torch.zeros(1)]) / (count + 1e-6)
    angle = (position - centres[:, None]) * 2 * math.pi
    return torch.stack([angle.sin(), angle.cos(), (angle / 100).sin(), (angle / 100).cos()], dim=-1)


@pytest.mark.parametrize("name", ["nopad", "pad"])
def test_golden_values_of_the_official_code(name):
    path = Path(__file__).parents[1] / "golden" / "soit" / "instance_attention.npz"
    golden = np.load(path)
    height, width, instances = 25, 34, 6
    draws = [np.random.RandomState(seed) for seed in (1, 2, 3, 4)]
    feats = torch.from_numpy(draws[0].randn(height * width, 1, 8).astype(np.float32))
    weights = draws[1].randn(instances, 441).astype(np.float32)
    weights[:, 256:288] *= 3
    centres = torch.from_numpy(draws[2].rand(instances, 2).astype(np.float32))
    grad = torch.from_numpy(draws[3].randn(instances, height * width).astype(np.float32))
    valid = (22, 29) if name == "pad" else (height, width)
    case = Case(
        feats.view(1, height, width, 8),
        torch.from_numpy(weights),
        sine_codes(centres[:, 1], valid[0], height),
        sine_codes(centres[:, 0], valid[1], width),
        4,
        4,
        None,
        torch.tensor([valid]),
    ).trainable()
    output = case.call()
    grads = torch.autograd.grad(
        (output.flatten(1) * grad).sum(), (case.mask_feats, case.dynamic_weights)
    )
    for got, wanted in zip(
        (output.detach(), grads[0].view(-1, 8), grads[1]),
        (f"{name}_logits", f"{name}_grad_feat", f"{name}_grad_params"),
    ):
        expected = torch.from_numpy(golden[wanted]).view_as(got)
        assert relative_error(got, expected) < 1e-4, wanted
        assert torch.allclose(got, expected, atol=1e-3, rtol=1e-3), wanted


def test_one_head_with_fixed_offsets_is_deformable_attention():
    case = make_case(11, batch=1, instances=1, channels=4, heads=1, points=3, padded=False)
    layers = case.layers()
    case.dynamic_weights[:, : 2 * 3 * 4] = 0  # offsets are their biases
    case.dynamic_weights[:, 30:42] = 0  # attention too
    grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")[::-1], -1)
    at = grid.view(1, 20, 1, 1, 1, 2) + 0.5 + layers[1].view(1, 1, 1, 1, 3, 2)
    attn = layers[3].view(1, 1, 1, 1, 3).softmax(-1).expand(1, 20, 1, 1, 3)
    sampled = ms_deform_attn(
        case.mask_feats.view(1, 20, 1, 4), [(4, 5)], at / torch.tensor([5.0, 4.0]).double(), attn
    )
    expected = sampled.relu() @ layers[4][0] + layers[5]
    assert relative_error(case.call(), expected.view(1, 4, 5)) < 1e-12
