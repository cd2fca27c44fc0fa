"""Values, precision, determinism and sizes of multi-scale deformable attention."""

import numpy as np
import pytest
import torch
from ms_deform_attn_cases import Case, gathered, make_case, naive, random_case, relative_error
from torch.utils._python_dispatch import TorchDispatchMode

from queryseg.ops import ms_deform_attn
from queryseg.ops.ms_deform_attn import (
    ms_deform_attn_backward_reference,
    ms_deform_attn_reference,
)

# Measured on float64: 7e-16 at most, over the 240 shapes below.
FLOAT64_NOISE = 1e-13


def run(case: Case) -> torch.Tensor:
    return ms_deform_attn(case.value, case.shapes, case.locations, case.weights)


def run_with_grads(case: Case, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
    inputs = [tensor.detach().requires_grad_() for tensor in case.tensors()]
    output = ms_deform_attn(inputs[0], case.shapes, inputs[1], inputs[2])
    return output.detach(), *torch.autograd.grad(output, inputs, grad.to(output.dtype))


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_definition_evaluated_one_scalar_at_a_time(seed):
    case = make_case(seed, queries=3, channels=(1, 4, 5)[seed % 3], levels=3)
    assert relative_error(run(case), naive(case)) < FLOAT64_NOISE
    assert relative_error(gathered(case), naive(case)) < FLOAT64_NOISE


@pytest.mark.parametrize("first", range(0, 240, 40))
def test_float64_equals_the_reference_on_random_shapes(first):
    for seed in range(first, first + 40):
        case = random_case(seed)
        expected = ms_deform_attn_reference(case.value, case.sizes, case.locations, case.weights)
        grad = torch.randn_like(expected)
        output, *grads = run_with_grads(case, grad)
        expected_grads = ms_deform_attn_backward_reference(
            grad, case.value, case.sizes, case.locations, case.weights
        )
        assert relative_error(output, expected) < FLOAT64_NOISE, seed
        for got, wanted in zip(grads, expected_grads):
            assert got.shape == wanted.shape
            assert relative_error(got, wanted) < FLOAT64_NOISE, seed


@pytest.mark.parametrize("seed", range(10))
def test_reference_gradients_equal_autograd_through_indexing(seed):
    case = make_case(seed, channels=5, levels=3)
    grad = torch.randn_like(naive(case))
    inputs = [tensor.requires_grad_() for tensor in case.tensors()]
    expected = torch.autograd.grad(gathered(case), inputs, grad)
    tensors = [tensor.detach() for tensor in case.tensors()]
    got = ms_deform_attn_backward_reference(grad, tensors[0], case.sizes, tensors[1], tensors[2])
    for one, other in zip(got, expected):
        assert relative_error(one, other) < FLOAT64_NOISE


def off_the_cell_borders(case: Case) -> Case:
    """Moves float32 points that lie within 1e-3 px of a cell border, where gradients jump."""
    scale = torch.tensor([[w, h] for h, w in case.shapes]).view(-1, 1, 2)
    pixels = case.locations.double() * scale - 0.5
    close = (pixels - pixels.round()).abs() < 1e-3
    moved = torch.where(close, pixels + 0.01, pixels)
    return Case(case.value, case.shapes, ((moved + 0.5) / scale).float(), case.weights)


def encoder_case(seed: int) -> Case:
    shapes = [(50, 76), (25, 38), (13, 19), (7, 10)]
    return make_case(seed, batch=1, queries=300, heads=8, channels=32, points=4, shapes=shapes).to(
        torch.float32, torch.float32
    )


@pytest.mark.parametrize("seed", range(3))
def test_float32_is_close_to_float64(seed):
    # Measured: output 9e-7, value and weights 9e-7, locations 2e-6 (2e-4 near cell borders).
    for case, tolerance in (
        (off_the_cell_borders(encoder_case(seed)), 1e-4),
        (encoder_case(seed), 5e-3),
    ):
        grad = torch.randn(1, 300, 256)
        got = run_with_grads(case, grad)
        wide = run_with_grads(case.to(torch.float64, torch.float64), grad)
        for name, one, other in zip(("output", "value", "locations", "weights"), got, wide):
            assert one.dtype == torch.float32
            limit = tolerance if name == "locations" else 1e-5
            assert relative_error(one, other) < limit, name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 5e-3), (torch.float16, 1e-3)])
def test_half_values_lose_only_their_own_rounding(dtype, tolerance):
    case = encoder_case(0)
    half = Case(case.value.to(dtype), case.shapes, case.locations, case.weights)
    grad = torch.randn(1, 300, 256)
    got = run_with_grads(half, grad)
    assert got[0].dtype == got[1].dtype == dtype
    assert got[2].dtype == got[3].dtype == torch.float32
    exact = run_with_grads(case.to(torch.float64, torch.float64), grad)
    for one, other in zip(got, exact):
        assert relative_error(one, other) < tolerance
    # Against the reference on the same rounded inputs only the last rounding is left.
    same = run_with_grads(half.to(torch.float64, torch.float64), grad.to(dtype))
    assert relative_error(got[0], same[0]) < tolerance / 2
    assert relative_error(got[2], same[2]) < 1e-3
    assert relative_error(got[3], same[3]) < 1e-5


class Recorder(TorchDispatchMode):
    """Notes the dtypes that reach the operator."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.queryseg.ms_deform_attn.default:
            self.dtypes = [arg.dtype for arg in args if isinstance(arg, torch.Tensor)]
        return func(*args, **(kwargs or {}))


def test_autocast_casts_the_value_and_nothing_else():
    case = encoder_case(0)
    with Recorder() as recorder, torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(case)
    assert recorder.dtypes == [torch.bfloat16, torch.float32, torch.float32]
    exact = run(case.to(torch.float64, torch.float64))
    assert output.dtype == torch.bfloat16
    assert relative_error(output, exact) < 5e-3
    moved = Case(case.value, case.shapes, case.locations.bfloat16().float(), case.weights)
    assert relative_error(run(moved), exact) > 0.05, "rounded locations would go unnoticed"


def test_autocast_leaves_float64_alone():
    case = make_case(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run(case).dtype == torch.float64


def test_half_weights_are_computed_with_in_float32():
    case = encoder_case(0)
    rounded = case.weights.half()
    got = ms_deform_attn(case.value, case.shapes, case.locations, rounded)
    same = ms_deform_attn(case.value, case.shapes, case.locations, rounded.float())
    assert torch.equal(got, same)


def test_spatial_shapes_may_be_a_tensor_or_lists():
    case = make_case(0)
    expected = run(case)
    for shapes in (torch.tensor(case.shapes), [list(shape) for shape in case.shapes]):
        got = ms_deform_attn(case.value, shapes, case.locations, case.weights)
        assert torch.equal(got, expected)


def test_points_off_the_map_nan_and_infinity_contribute_zero():
    case = make_case(0, batch=1, queries=5, points=1, shapes=[(3, 4)], heads=1)
    for query, location in enumerate((float("nan"), float("inf"), -float("inf"), 1e30, -7.0)):
        case.locations[0, query] = location
    grad = torch.ones(1, 5, 4, dtype=torch.float64)
    for tensor in run_with_grads(case, grad):
        assert torch.equal(tensor, torch.zeros_like(tensor))


def test_nan_in_the_value_reaches_only_the_points_that_touch_it():
    case = make_case(1, batch=1, queries=2, points=1, shapes=[(3, 4)], heads=1)
    case.value[0, 0] = float("nan")
    case.locations[0, 0] = -0.5  # off the map, next to the NaN
    case.locations[0, 1] = 0.2
    output = run(case)
    assert output[0, 0].isfinite().all()
    assert output[0, 1].isnan().all()


def test_infinity_in_a_pixel_of_the_border_stays_infinite():
    # Each of the first four points lies half, or three quarters, outside of the map's 3 x 4 pixels.
    case = make_case(2, batch=1, queries=5, points=1, shapes=[(3, 4)], heads=1)
    case.value[:] = float("inf")
    case.weights[:] = 1
    borders = [(0.01, 0.4), (0.99, 0.4), (0.4, 0.01), (0.99, 0.99), (0.4, 0.4)]
    case.locations[0, :, 0, 0, 0] = torch.tensor(borders, dtype=torch.float64)
    assert torch.equal(run(case), torch.full((1, 5, 4), float("inf"), dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_order_of_few_queries_does_not_change_what_they_find(dtype):
    # 40 queries of 24 points on 5,440 tokens: too few to pack the tokens for.
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    case = make_case(3, batch=2, queries=40, heads=2, points=3, shapes=[(40, 32), (10, 8)] * 4)
    case.locations[:, 7] = float("nan")
    case.locations[0, 9] = -float("inf")
    case = case.to(dtype, wide)
    shuffle = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    other = Case(
        case.value,
        case.shapes,
        case.locations[:, shuffle].clone(),
        case.weights[:, shuffle].clone(),
    )
    grad = torch.randn(2, 40, 8)
    output, value_grad, *point_grads = run_with_grads(case, grad)
    shuffled, shuffled_value_grad, *shuffled_grads = run_with_grads(other, grad[:, shuffle])
    assert torch.equal(shuffled, output[:, shuffle])
    # Queries of one height are summed in the order that they are given in.
    assert relative_error(shuffled_value_grad, value_grad) < 4 * torch.finfo(dtype).eps
    for one, expected in zip(shuffled_grads, point_grads):
        assert torch.equal(one, expected[:, shuffle])


@pytest.mark.host
@pytest.mark.parametrize("queries", [3, 300], ids=["direct", "packed"])
def test_results_do_not_depend_on_the_number_of_threads_or_the_run(queries):
    case = make_case(
        0, batch=1, queries=queries, heads=8, channels=32, points=4, shapes=[(9, 8), (5, 4)]
    ).to(torch.float32, torch.float32)
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
    expected = ms_deform_attn_reference(case.value, case.sizes, case.locations, case.weights)
    grad = torch.randn_like(expected)
    output, grad_value, *_ = run_with_grads(case, grad)
    wanted = ms_deform_attn_backward_reference(
        grad, case.value, case.sizes, case.locations, case.weights
    )
    assert relative_error(output, expected) < FLOAT64_NOISE
    assert relative_error(grad_value, wanted[0]) < FLOAT64_NOISE


@pytest.mark.parametrize("empty", ["batch", "queries", "heads", "channels"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_dimension_may_be_empty(empty, dtype):
    case = make_case(0, shapes=[(9, 8), (5, 4)], **{empty: 0}).to(dtype, torch.float32)
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
    location = torch.tensor([0.5, 1 - 1 / rows]).view(1, 1, 1, 1, 1, 2)
    output = ms_deform_attn(value, [(rows, 1)], location, torch.ones(1, 1, 1, 1, 1))
    # float32 locations resolve about 1e-4 px here.
    assert torch.allclose(output.float(), torch.tensor(2.0), atol=2e-3)
