"""Malformed calls of the fused operator end in an error that names the argument."""

from collections.abc import Callable

import pytest
import torch
from ms_deform_attn_fused_cases import Case, make_case


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
    "value no tokens": (change("value", lambda v: v[:, :0]), "spatial_shapes cover"),
    "value one head more": (change("value", lambda v: v[:, :, [0, 1, 1]]), "sampling_offsets"),
    "value one image more": (change("value", lambda v: v[[0, 1, 1]]), "sampling_offsets"),
    "value on another device": (change("value", lambda v: v.to("meta")), "is on cpu"),
    "reference rank 3": (change("reference", lambda r: r[0]), "reference_points must have"),
    "reference rank 5": (change("reference", lambda r: r[None]), "reference_points must have"),
    "reference one coordinate": (change("reference", lambda r: r[..., :1]), "2 or 4"),
    "reference three coordinates": (
        change("reference", lambda r: torch.cat([r, r[..., :1]], -1)),
        "2 or 4",
    ),
    "reference six coordinates": (
        change("reference", lambda r: torch.cat([r, r, r], -1)),
        "reference_points must have shape",
    ),
    "reference three images": (change("reference", lambda r: r[[0, 1, 1]]), "2 or 1"),
    "reference no image": (change("reference", lambda r: r[:0]), "reference_points must have"),
    "reference one query": (change("reference", lambda r: r[:, :1]), "reference_points must"),
    "reference one query more": (
        change("reference", lambda r: torch.cat([r, r[:, :1]], 1)),
        "reference_points must have shape",
    ),
    "reference three levels": (
        change("reference", lambda r: r[:, :, [0, 1, 1]]),
        "reference_points must have shape",
    ),
    "reference int": (change("reference", torch.Tensor.int), "reference_points must be of a float"),
    "reference bool": (change("reference", lambda r: r > 0), "reference_points must be of a float"),
    "reference complex": (change("reference", lambda r: r + 0j), "reference_points must be of"),
    "reference on another device": (
        change("reference", lambda r: r.to("meta")),
        "reference_points is on meta",
    ),
    "offsets rank 5": (change("offsets", lambda x: x[0]), "sampling_offsets must have"),
    "offsets rank 7": (change("offsets", lambda x: x[None]), "sampling_offsets must have"),
    "offsets as the layer puts them out": (
        change("offsets", lambda x: x.flatten(2)),
        "sampling_offsets must have shape",
    ),
    "offsets three coordinates": (
        change("offsets", lambda x: torch.cat([x, x[..., :1]], -1)),
        "sampling_offsets must have",
    ),
    "offsets one coordinate": (change("offsets", lambda x: x[..., :1]), "sampling_offsets"),
    "offsets one image": (change("offsets", lambda x: x[:1]), "sampling_offsets"),
    "offsets one head": (change("offsets", lambda x: x[:, :, :1]), "sampling_offsets"),
    "offsets one level": (change("offsets", lambda x: x[:, :, :, :1]), "sampling_offsets"),
    "offsets without points": (change("offsets", lambda x: x[..., :0, :]), "P >= 1"),
    "offsets int": (change("offsets", torch.Tensor.int), "sampling_offsets must be of a float"),
    "offsets complex": (change("offsets", lambda x: x + 0j), "sampling_offsets must be of a float"),
    "offsets on another device": (
        change("offsets", lambda x: x.to("meta")),
        "sampling_offsets is on meta",
    ),
    "logits rank 4": (change("logits", lambda x: x[0]), "attention_logits must have"),
    "logits with points flattened": (
        change("logits", lambda x: x.flatten(3)),
        "attention_logits must have",
    ),
    "logits one query": (change("logits", lambda x: x[:, :1]), "attention_logits must have"),
    "logits one point less": (change("logits", lambda x: x[..., 1:]), "attention_logits"),
    "logits transposed": (change("logits", lambda x: x.transpose(1, 2)), "attention_logits"),
    "logits int": (change("logits", torch.Tensor.int), "attention_logits must be of a float"),
    "logits bool": (change("logits", lambda x: x > 0), "attention_logits must be of a float"),
    "logits on another device": (
        change("logits", lambda x: x.to("meta")),
        "attention_logits is on meta",
    ),
    "shapes empty": (change("shapes", lambda x: []), "spatial_shapes must hold"),
    "shapes of three": (change("shapes", lambda x: [(*row, 1) for row in x]), "spatial_shapes"),
    "shapes float": (change("shapes", lambda x: [(5.0, 6.0), (3.0, 4.0)]), "spatial_shapes"),
    "shapes zero": (change("shapes", lambda x: [(0, 6), (3, 4)]), "must be positive"),
    "shapes negative": (change("shapes", lambda x: [(-5, -6), (3, 4)]), "must be positive"),
    "shapes one level more": (change("shapes", lambda x: [*x, (1, 1)]), "spatial_shapes cover"),
    "shapes swapped into another sum": (change("shapes", lambda x: [(5, 7), (3, 4)]), "cover"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_call_names_the_argument(name):
    apply, message = MALFORMED[name]
    case = make_case(0, shapes=[(5, 6), (3, 4)])
    apply(case)
    with pytest.raises(ValueError, match=message):
        case.output()


RAW = {
    "sizes do not cover the value": lambda v, s, r, x, w: (v, [5, 6, 3, 5], r, x, w),
    "odd number of sizes": lambda v, s, r, x, w: (v, [5, 6, 3], r, x, w),
    "no sizes": lambda v, s, r, x, w: (v, [], r, x, w),
    "negative sizes with the right sum": lambda v, s, r, x, w: (v, [-5, -6, 3, 4], r, x, w),
    "sizes that overflow 32 bits": lambda v, s, r, x, w: (v, [1 << 31, 1 << 31, 3, 4], r, x, w),
    "float32 reference with a float64 value": lambda v, s, r, x, w: (v, s, r.float(), x, w),
    "float32 offsets with a float64 value": lambda v, s, r, x, w: (v, s, r, x.float(), w),
    "half logits with a float64 value": lambda v, s, r, x, w: (v, s, r, x, w.half()),
    "float64 offsets with a float32 value": lambda v, s, r, x, w: (v.float(), s, r.float(), x, w),
    "half reference": lambda v, s, r, x, w: (v.float(), s, r.half(), x.float(), w.float()),
    "int offsets": lambda v, s, r, x, w: (v, s, r, x.int(), w),
    "int value": lambda v, s, r, x, w: (v.int(), s, r, x, w),
    "no points": lambda v, s, r, x, w: (v, s, r, x[..., :0, :], w[..., :0]),
    "one image of reference points": lambda v, s, r, x, w: (v, s, r[:1], x, w),
    "one level of reference points": lambda v, s, r, x, w: (v, s, r[:, :, :1], x, w),
    "reference of three": lambda v, s, r, x, w: (v, s, torch.cat([r, r[..., :1]], -1), x, w),
    "one image of offsets": lambda v, s, r, x, w: (v, s, r, x[:1], w),
    "one image of logits": lambda v, s, r, x, w: (v, s, r, x, w[:1]),
    "value of rank 3": lambda v, s, r, x, w: (v[0], s, r, x, w),
    "reference of rank 3": lambda v, s, r, x, w: (v, s, r[0], x, w),
    "offsets of rank 5": lambda v, s, r, x, w: (v, s, r, x[0], w),
}


@pytest.mark.parametrize("name", RAW)
def test_the_kernel_itself_refuses_what_would_leave_its_arrays(name):
    case = make_case(0, shapes=[(5, 6), (3, 4)])
    arguments = RAW[name](case.value, case.sizes, *case.tensors()[1:])
    with pytest.raises(RuntimeError):
        torch.ops.queryseg.ms_deform_attn_fused(*arguments)
    grad = torch.ones(2, 6, 8, dtype=case.value.dtype)
    with pytest.raises(RuntimeError):
        torch.ops.queryseg.ms_deform_attn_fused_backward(grad, *arguments, True)


@pytest.mark.parametrize("shape", [(2, 6, 7), (2, 5, 8), (1, 6, 8), (6, 8), (2, 6, 2, 4)])
def test_the_backward_kernel_refuses_a_gradient_of_another_shape(shape):
    case = make_case(0)
    grad = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="grad_output"):
        torch.ops.queryseg.ms_deform_attn_fused_backward(
            grad, case.value, case.sizes, *case.tensors()[1:], False
        )


def test_there_are_at_least_forty_malformed_calls():
    assert len(MALFORMED) >= 40
