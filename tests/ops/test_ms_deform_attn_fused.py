"""Values, precision, determinism and sizes of the fused multi-scale deformable attention."""

import numpy as np
import pytest
import torch
from ms_deform_attn_cases import relative_error
from ms_deform_attn_fused_cases import Case, gathered, in_one_layer, make_case, naive, random_case
from torch.utils._python_dispatch import TorchDispatchMode

from queryseg.ops import ms_deform_attn, ms_deform_attn_fused
from queryseg.ops.ms_deform_attn_fused import (
    ms_deform_attn_fused_backward_reference,
    ms_deform_attn_fused_reference,
    sampling_locations,
)

# Measured on float64: 2e-15 at most, over the 240 shapes below.
FLOAT64_NOISE = 1e-13
NAMES = ("output", "value", "reference", "offsets", "logits")


def run_with_grads(case: Case, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
    inputs = [tensor.detach().requires_grad_() for tensor in case.tensors()]
    output = case.with_tensors(inputs).output()
    return output.detach(), *torch.autograd.grad(output, inputs, grad.to(output.dtype))


@pytest.mark.parametrize("reference_dim", [2, 4], ids=["points", "boxes"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition_evaluated_one_scalar_at_a_time(seed, reference_dim):
    channels = (1, 4, 5)[seed]
    case = make_case(seed, queries=3, channels=channels, levels=3, reference_dim=reference_dim)
    assert relative_error(case.output(), naive(case)) < FLOAT64_NOISE
    assert relative_error(gathered(case), naive(case)) < FLOAT64_NOISE


@pytest.mark.parametrize("first", range(0, 240, 40))
def test_float64_equals_the_reference_on_random_shapes(first):
    for seed in range(first, first + 40):
        case = random_case(seed)
        arguments = (case.value, case.sizes, *case.tensors()[1:])
        expected = ms_deform_attn_fused_reference(*arguments)
        grad = torch.randn_like(expected)
        output, *grads = run_with_grads(case, grad)
        expected_grads = ms_deform_attn_fused_backward_reference(grad, *arguments, True)
        assert relative_error(output, expected) < FLOAT64_NOISE, seed
        for got, wanted in zip(grads, expected_grads):
            assert got.shape == wanted.shape
            assert relative_error(got, wanted) < FLOAT64_NOISE, seed


@pytest.mark.parametrize("reference_dim", [2, 4], ids=["points", "boxes"])
@pytest.mark.parametrize("seed", range(5))
def test_reference_gradients_equal_autograd_through_indexing(seed, reference_dim):
    case = make_case(seed, channels=5, levels=3, reference_dim=reference_dim)
    inputs = [tensor.requires_grad_() for tensor in case.tensors()]
    output = gathered(case)
    grad = torch.randn_like(output)
    expected = torch.autograd.grad(output, inputs, grad)
    value, *points = [tensor.detach() for tensor in inputs]
    got = ms_deform_attn_fused_backward_reference(grad, value, case.sizes, *points, True)
    for one, other in zip(got, expected):
        assert relative_error(one, other) < FLOAT64_NOISE


def encoder_case(seed: int, reference_dim: int = 2) -> Case:
    shapes = [(50, 76), (25, 38), (13, 19), (7, 10)]
    return make_case(
        seed,
        batch=1,
        queries=300,
        heads=8,
        channels=32,
        points=4,
        shapes=shapes,
        reference_dim=reference_dim,
        dtype=torch.float32,
    )


def off_the_cell_borders(case: Case) -> Case:
    """Moves points that lie within 1e-3 px of a cell border, where gradients jump."""
    wide = case.to(torch.float64)
    scale = torch.tensor([[w, h] for h, w in case.shapes]).view(-1, 1, 2)
    pixels = sampling_locations(wide.reference, wide.offsets, case.sizes) * scale - 0.5
    close = ((pixels - pixels.round()).abs() < 1e-3).any(-1, keepdim=True)
    return Case(
        case.value,
        case.shapes,
        case.reference,
        torch.where(close, case.offsets + 0.02, case.offsets),
        case.logits,
    )


@pytest.mark.parametrize("reference_dim", [2, 4], ids=["points", "boxes"])
def test_float32_is_close_to_float64(reference_dim):
    # Measured: 2e-6 everywhere. A point may fall into the next cell, as one of seed 1 does without
    # AVX2: its gradient then is another one (2e-2 of the whole).
    for case, tolerance in (
        (off_the_cell_borders(encoder_case(0, reference_dim)), 1e-4),
        (encoder_case(2, reference_dim), 5e-3),
    ):
        grad = torch.randn(1, 300, 256)
        got = run_with_grads(case, grad)
        wide = run_with_grads(case.to(torch.float64), grad)
        for name, one, other in zip(NAMES, got, wide):
            assert one.dtype == torch.float32
            limit = tolerance if name in ("reference", "offsets") else 1e-5
            assert relative_error(one, other) < limit, name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 5e-3), (torch.float16, 1e-3)])
def test_half_inputs_lose_only_their_own_rounding(dtype, tolerance):
    case = encoder_case(0)
    half = Case(
        case.value.to(dtype),
        case.shapes,
        case.reference,
        case.offsets.to(dtype),
        case.logits.to(dtype),
    )
    grad = torch.randn(1, 300, 256).to(dtype)
    got = run_with_grads(half, grad)
    assert [one.dtype for one in got] == [dtype, dtype, torch.float32, dtype, dtype]
    exact = run_with_grads(half.to(torch.float64), grad)
    for name, one, other in zip(NAMES, got, exact):
        assert relative_error(one, other) < tolerance, name


@pytest.mark.parametrize("offsets", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("logits", [torch.float32, torch.float16, torch.bfloat16])
def test_offsets_and_logits_may_each_have_their_own_dtype(offsets, logits, same_gradient):
    case = make_case(0, channels=32, points=4, dtype=torch.float32)
    rounded = Case(
        case.value, case.shapes, case.reference, case.offsets.to(offsets), case.logits.to(logits)
    )
    grad = torch.randn(2, 6, 64)
    got = run_with_grads(rounded, grad)
    exact = run_with_grads(rounded.to(torch.float32), grad)
    assert (got[3].dtype, got[4].dtype) == (offsets, logits)
    for one, other in zip(got, exact):
        assert same_gradient(one, other.to(one.dtype))


class Recorder(TorchDispatchMode):
    """Notes the dtypes that reach the operator."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.queryseg.ms_deform_attn_fused.default:
            self.dtypes = [arg.dtype for arg in args if isinstance(arg, torch.Tensor)]
        return func(*args, **(kwargs or {}))


def test_autocast_casts_the_value_and_nothing_else():
    case = encoder_case(0)
    with Recorder() as recorder, torch.autocast("cpu", dtype=torch.bfloat16):
        output = case.output()
    assert recorder.dtypes == [torch.bfloat16, torch.float32, torch.float32, torch.float32]
    exact = case.to(torch.float64).output()
    assert output.dtype == torch.bfloat16
    assert relative_error(output, exact) < 5e-3


def test_reference_plus_half_offset_is_added_in_float32():
    case = encoder_case(0)
    case.offsets, case.logits = case.offsets.bfloat16(), case.logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = case.output()
    exact = case.to(torch.float64)
    assert relative_error(output, exact.output()) < 5e-3
    locations = sampling_locations(exact.reference, exact.offsets, case.sizes).bfloat16()
    weights = exact.logits.flatten(-2).softmax(-1).view(exact.logits.shape)
    moved = ms_deform_attn(exact.value, case.shapes, locations.double(), weights)
    assert relative_error(moved, exact.output()) > 0.05, "rounded locations would go unnoticed"


def test_half_reference_points_are_widened_before_the_addition():
    case = encoder_case(0)
    case.reference = case.reference.bfloat16()
    wide = Case(case.value, case.shapes, case.reference.float(), case.offsets, case.logits)
    assert torch.equal(case.output(), wide.output())


def test_autocast_leaves_float64_alone():
    case = make_case(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert case.output().dtype == torch.float64


def test_float32_linear_layers_serve_a_float64_value_and_the_other_way_round():
    case = make_case(0)
    mixed = Case(case.value, case.shapes, case.reference, case.offsets.float(), case.logits.float())
    assert relative_error(mixed.output(), case.output()) < 1e-6
    assert mixed.output().dtype == torch.float64
    mixed = Case(case.value.float(), case.shapes, case.reference, case.offsets, case.logits)
    assert relative_error(mixed.output(), case.output()) < 1e-6
    assert mixed.output().dtype == torch.float32


@pytest.mark.parametrize("reference_dim", [2, 4], ids=["points", "boxes"])
def test_views_of_a_linear_layer_and_shared_reference_points_are_read_in_place(
    reference_dim, same_gradient
):
    views = in_one_layer(make_case(0, channels=32, points=4, reference_dim=reference_dim))
    assert not any(tensor.is_contiguous() for tensor in views.tensors()[1:])
    copies = views.with_tensors([tensor.contiguous() for tensor in views.tensors()])
    grad = torch.randn(2, 6, 64, dtype=torch.float64)
    for one, other in zip(run_with_grads(views, grad), run_with_grads(copies, grad)):
        assert same_gradient(one, other)


def test_reference_points_of_one_image_and_level_serve_all_and_gather_their_gradients():
    case = make_case(0)
    shared = case.reference[:1, :, :1].clone().requires_grad_()
    output = Case(case.value, case.shapes, shared, case.offsets, case.logits).output()
    full = shared.detach().expand(2, -1, 2, -1).contiguous().requires_grad_()
    expected = Case(case.value, case.shapes, full, case.offsets, case.logits).output()
    assert torch.equal(output, expected)
    grad = torch.randn_like(output)
    (got,) = torch.autograd.grad(output, shared, grad)
    (wanted,) = torch.autograd.grad(expected, full, grad)
    assert relative_error(got, wanted.sum((0, 2), keepdim=True)) < FLOAT64_NOISE


def test_nothing_is_kept_for_the_backward_pass_but_the_inputs():
    case = make_case(0)
    inputs = [tensor.requires_grad_() for tensor in case.tensors()]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (kept.append(tensor.data_ptr()), tensor)[1], lambda tensor: tensor
    ):
        case.with_tensors(inputs).output()
    assert set(kept) <= {tensor.data_ptr() for tensor in inputs}
    assert kept


@pytest.mark.parametrize("reference_dim", [2, 4], ids=["points", "boxes"])
def test_points_off_the_map_nan_and_infinity_contribute_zero(reference_dim):
    case = make_case(
        0, batch=1, queries=5, points=1, shapes=[(3, 4)], heads=1, reference_dim=reference_dim
    )
    for query, offset in enumerate((float("nan"), float("inf"), -float("inf"), 1e30, -70.0)):
        case.offsets[0, query] = offset
    grad = torch.ones(1, 5, 4, dtype=torch.float64)
    for tensor in run_with_grads(case, grad):
        assert torch.equal(tensor, torch.zeros_like(tensor))


def test_logits_of_minus_infinity_have_no_weight_and_nan_stays_in_its_head():
    case = make_case(0, batch=1, queries=3, points=5, shapes=[(6, 7)], heads=2)
    case.offsets *= 0.1
    case.logits[0, 0, 0, 0, 1:4] = -float("inf")
    case.logits[0, 1, 1, 0, 2] = float("nan")
    output = case.output().unflatten(-1, (2, 4))
    kept = make_case(0, batch=1, queries=3, points=5, shapes=[(6, 7)], heads=2)
    alone = Case(
        kept.value, kept.shapes, kept.reference, case.offsets[..., [0, 4], :],
        case.logits[..., [0, 4]],
    ).output()  # fmt: skip
    assert relative_error(output[0, 0, 0], alone.unflatten(-1, (2, 4))[0, 0, 0]) < FLOAT64_NOISE
    assert output[0, 1, 1].isnan().all()
    assert output[0, 1, 0].isfinite().all()
    assert output[0, 2].isfinite().all()


@pytest.mark.parametrize("shift", [0.0, 80.0, -300.0, 1e4])
def test_large_logits_do_not_overflow(shift):
    case = make_case(0, dtype=torch.float32)
    moved = Case(
        case.value, case.shapes, case.reference, case.offsets, case.logits.double() + shift
    )
    wide = case.to(torch.float64).output()
    assert relative_error(moved.output(), wide) < 1e-6 + 1e-6 * abs(shift)


@pytest.mark.host
@pytest.mark.parametrize("queries", [3, 300], ids=["direct", "packed"])
def test_results_do_not_depend_on_the_number_of_threads_or_the_run(queries):
    case = make_case(
        0,
        batch=1,
        queries=queries,
        heads=8,
        channels=32,
        points=4,
        shapes=[(9, 8), (5, 4)],
        reference_dim=4,
        dtype=torch.float32,
    )
    grad = torch.randn(1, queries, 256)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = run_with_grads(case, grad)
        for threads in (1, 1, 1, 2, 2, 2, 3, 5, 16, 7):
            torch.set_num_threads(threads)
            for one, other in zip(run_with_grads(case, grad), first):
                assert torch.equal(one, other), threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("batch", [0, 1, 7, 154])
def test_any_batch_size_works(batch):
    case = make_case(0, batch=batch, queries=4, channels=8)
    arguments = (case.value, case.sizes, *case.tensors()[1:])
    expected = ms_deform_attn_fused_reference(*arguments)
    grad = torch.randn_like(expected)
    got = run_with_grads(case, grad)
    wanted = (expected, *ms_deform_attn_fused_backward_reference(grad, *arguments, True))
    for one, other in zip(got, wanted):
        assert relative_error(one, other) < FLOAT64_NOISE


@pytest.mark.parametrize("empty", ["batch", "queries", "heads", "channels"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_dimension_may_be_empty(empty, dtype):
    case = make_case(0, shapes=[(9, 8), (5, 4)], dtype=torch.float32, **{empty: 0})
    case.value = case.value.to(dtype)
    sizes = {"batch": 2, "queries": 6, "heads": 2, "channels": 4, empty: 0}
    shape = (sizes["batch"], sizes["queries"], sizes["heads"] * sizes["channels"])
    output, *grads = run_with_grads(case, torch.ones(shape))
    assert output.shape == shape
    assert [grad.shape for grad in grads] == [tensor.shape for tensor in case.tensors()]
    assert not any(grad.any() for grad in grads)


def test_values_beyond_two_to_the_31_elements_are_addressed_correctly():
    channels, rows = 1 << 20, (1 << 11) + 2
    # The system hands out untouched zero pages, so that this takes only the memory it writes.
    value = torch.from_numpy(np.zeros((1, rows, 1, channels), dtype=np.float16))
    value[0, -1] = 1
    value[0, -2] = 3
    assert value.numel() > 1 << 31
    reference = torch.tensor([0.5, 1.0]).view(1, 1, 1, 2)
    offsets = torch.tensor([0.0, -1.0]).view(1, 1, 1, 1, 1, 2)
    output = ms_deform_attn_fused(
        value, [(rows, 1)], reference, offsets, torch.zeros(1, 1, 1, 1, 1)
    )
    # float32 locations resolve about 1e-4 px here.
    assert torch.allclose(output.float(), torch.tensor(2.0), atol=2e-3)
