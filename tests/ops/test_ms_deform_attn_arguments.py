"""Malformed calls of multi-scale deformable attention end in an error that names the argument."""

from collections.abc import Callable

import pytest
import torch
from ms_deform_attn_cases import Case, make_case

from queryseg.ops import has_kernels, ms_deform_attn


def change(name: str, how: Callable) -> Callable[[Case], None]:
    def apply(case: Case) -> None:
        setattr(case, name, how(getattr(case, name)))

    return apply


# case id: (what is changed, words of the message)
MALFORMED = {
    "value rank 3": (change("value", lambda v: v[0]), "value must have shape"),
    "value rank 5": (change("value", lambda v: v[None]), "value must have shape"),
    "value int": (change("value", lambda v: v.int()), "value must be float32"),
    "value bool": (change("value", lambda v: v > 0), "value must be float32"),
    "value complex": (change("value", lambda v: v + 0j), "value must be float32"),
    "value one token less": (change("value", lambda v: v[:, 1:]), "spatial_shapes cover"),
    "value one token more": (change("value", lambda v: torch.cat([v, v[:, :1]], 1)), "cover"),
    "value no tokens": (change("value", lambda v: v[:, :0]), "spatial_shapes cover"),
    "value one head more": (change("value", lambda v: v[:, :, [0, 1, 1]]), "sampling_locations"),
    "value one image more": (change("value", lambda v: v[[0, 1, 1]]), "sampling_locations"),
    "value on another device": (change("value", lambda v: v.to("meta")), "is on cpu"),
    "value half, points float64": (change("value", torch.Tensor.half), "must be torch.float32"),
    "value float32, points float64": (change("value", torch.Tensor.float), "torch.float32"),
    "locations rank 5": (change("locations", lambda x: x[0]), "sampling_locations must have"),
    "locations rank 7": (change("locations", lambda x: x[None]), "sampling_locations must have"),
    "locations three coordinates": (
        change("locations", lambda x: torch.cat([x, x[..., :1]], -1)),
        "sampling_locations must have",
    ),
    "locations one coordinate": (change("locations", lambda x: x[..., :1]), "sampling_locations"),
    "locations one image": (change("locations", lambda x: x[:1]), "sampling_locations"),
    "locations one head": (change("locations", lambda x: x[:, :, :1]), "sampling_locations"),
    "locations one level": (change("locations", lambda x: x[:, :, :, :1]), "sampling_locations"),
    "locations without points": (change("locations", lambda x: x[..., :0, :]), "P >= 1"),
    "locations half": (change("locations", torch.Tensor.half), "sampling_locations must be"),
    "locations bfloat16": (change("locations", torch.Tensor.bfloat16), "sampling_locations must"),
    "locations float32, value float64": (
        change("locations", torch.Tensor.float),
        "sampling_locations must be torch.float64",
    ),
    "locations int": (change("locations", torch.Tensor.int), "sampling_locations must be"),
    "locations on another device": (
        change("locations", lambda x: x.to("meta")),
        "sampling_locations is on meta",
    ),
    "weights rank 4": (change("weights", lambda x: x[0]), "attention_weights must have"),
    "weights with points flattened": (
        change("weights", lambda x: x.flatten(3)),
        "attention_weights must have",
    ),
    "weights one query": (change("weights", lambda x: x[:, :1]), "attention_weights must have"),
    "weights one point less": (change("weights", lambda x: x[..., 1:]), "attention_weights"),
    "weights transposed": (change("weights", lambda x: x.transpose(1, 2)), "attention_weights"),
    "weights int": (change("weights", torch.Tensor.int), "attention_weights must be"),
    "weights bool": (change("weights", lambda x: x > 0), "attention_weights must be"),
    "weights on another device": (
        change("weights", lambda x: x.to("meta")),
        "attention_weights is on meta",
    ),
    "shapes empty": (change("shapes", lambda x: []), "spatial_shapes must hold"),
    "shapes flat": (change("shapes", lambda x: [s for row in x for s in row]), "spatial_shapes"),
    "shapes of three": (change("shapes", lambda x: [(*row, 1) for row in x]), "spatial_shapes"),
    "shapes of one": (change("shapes", lambda x: [row[:1] for row in x]), "spatial_shapes"),
    "shapes float": (change("shapes", lambda x: [(5.0, 6.0), (3.0, 4.0)]), "spatial_shapes"),
    "shapes text": (change("shapes", lambda x: ["56", "34"]), "spatial_shapes must hold"),
    "shapes zero": (change("shapes", lambda x: [(0, 6), (3, 4)]), "must be positive"),
    "shapes negative": (change("shapes", lambda x: [(-5, -6), (3, 4)]), "must be positive"),
    "shapes one level more": (change("shapes", lambda x: [*x, (1, 1)]), "spatial_shapes cover"),
    "shapes one level less": (change("shapes", lambda x: x[:1]), "spatial_shapes cover"),
    "shapes swapped into another sum": (change("shapes", lambda x: [(5, 7), (3, 4)]), "cover"),
    "shapes float tensor": (change("shapes", lambda x: torch.tensor(x).float()), "spatial_shapes"),
    "shapes tensor of rank 1": (change("shapes", lambda x: torch.tensor(x)[0]), "spatial_shapes"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_call_names_the_argument(name):
    apply, message = MALFORMED[name]
    case = make_case(0, shapes=[(5, 6), (3, 4)])
    apply(case)
    with pytest.raises(ValueError, match=message):
        ms_deform_attn(case.value, case.shapes, case.locations, case.weights)


RAW = {
    "sizes do not cover the value": lambda v, s, x, w: (v, [5, 6, 3, 5], x, w),
    "odd number of sizes": lambda v, s, x, w: (v, [5, 6, 3], x, w),
    "no sizes": lambda v, s, x, w: (v, [], x, w),
    "negative sizes with the right sum": lambda v, s, x, w: (v, [-5, -6, 3, 4], x, w),
    "sizes that overflow 32 bits": lambda v, s, x, w: (v, [1 << 31, 1 << 31, 3, 4], x, w),
    "sizes whose product overflows 64 bits": lambda v, s, x, w: (v, [1 << 40, 1 << 40, 3, 4], x, w),
    "sizes whose sum overflows 64 bits": lambda v, s, x, w: (v, [1 << 24] * (1 << 17), x, w),
    "float32 locations with a float64 value": lambda v, s, x, w: (v, s, x.float(), w),
    "float32 weights with a float64 value": lambda v, s, x, w: (v, s, x, w.float()),
    "half locations": lambda v, s, x, w: (v.float(), s, x.half(), w.float()),
    "int value": lambda v, s, x, w: (v.int(), s, x, w),
    "no points": lambda v, s, x, w: (v, s, x[..., :0, :], w[..., :0]),
    "one image of locations": lambda v, s, x, w: (v, s, x[:1], w),
    "one image of weights": lambda v, s, x, w: (v, s, x, w[:1]),
    "value of rank 3": lambda v, s, x, w: (v[0], s, x, w),
    "locations of rank 5": lambda v, s, x, w: (v, s, x[0], w),
}


@pytest.mark.parametrize("name", RAW)
def test_the_kernel_itself_refuses_what_would_leave_its_arrays(name):
    case = make_case(0, shapes=[(5, 6), (3, 4)])
    arguments = RAW[name](case.value, case.sizes, case.locations, case.weights)
    with pytest.raises(RuntimeError):
        torch.ops.queryseg.ms_deform_attn(*arguments)
    grad = torch.ones(2, 6, 8, dtype=case.value.dtype)
    with pytest.raises(RuntimeError):
        torch.ops.queryseg.ms_deform_attn_backward(grad, *arguments)


@pytest.mark.skipif(not has_kernels("cpu"), reason="pure torch has no such limit")
def test_a_level_too_wide_for_float32_coordinates_is_refused():
    width = (1 << 24) + 3
    value = torch.zeros(1, 1, 1, 1).expand(1, width, 1, 1)
    locations, weights = torch.ones(1, 1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 1)
    with pytest.raises(RuntimeError, match="at most 2\\^24"):
        ms_deform_attn(value, [(1, width)], locations, weights)


@pytest.mark.parametrize("shape", [(2, 6, 7), (2, 5, 8), (1, 6, 8), (6, 8), (2, 6, 2, 4)])
def test_the_backward_kernel_refuses_a_gradient_of_another_shape(shape):
    case = make_case(0)
    with pytest.raises(RuntimeError, match="grad_output"):
        torch.ops.queryseg.ms_deform_attn_backward(
            torch.ones(shape, dtype=torch.float64),
            case.value,
            case.sizes,
            case.locations,
            case.weights,
        )


def test_there_are_at_least_forty_malformed_calls():
    assert len(MALFORMED) >= 40
