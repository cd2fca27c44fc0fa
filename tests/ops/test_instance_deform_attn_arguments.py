"""Malformed calls of per-instance deformable attention: a clear error, never a crash."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from instance_deform_attn_cases import Case, make_case

from queryseg.ops import has_kernels

INDEX = torch.tensor([0, 1, 0])
SIZES = torch.tensor([[4, 5], [3, 2]])

# What is wrong, what the message must name.
MALFORMED: dict[str, tuple[Callable[[Case], dict], str]] = {
    "features of rank 3": (lambda c: {"mask_feats": c.mask_feats[0]}, "mask_feats"),
    "features of rank 5": (lambda c: {"mask_feats": c.mask_feats[None]}, "mask_feats"),
    "integer features": (lambda c: {"mask_feats": c.mask_feats.long()}, "mask_feats"),
    "boolean features": (lambda c: {"mask_feats": c.mask_feats > 0}, "mask_feats"),
    "features of other channels": (
        lambda c: {"mask_feats": c.mask_feats[..., :2]},
        "dynamic_weights",
    ),
    "no channels": (lambda c: {"mask_feats": c.mask_feats[..., :0]}, "channels"),
    "features of other height": (lambda c: {"mask_feats": c.mask_feats[:, :3]}, "row_codes"),
    "features of other width": (lambda c: {"mask_feats": c.mask_feats[:, :, :3]}, "column_codes"),
    "features of other dtype": (lambda c: {"mask_feats": c.mask_feats.float()}, "dynamic_weights"),
    "half features, double weights": (
        lambda c: {"mask_feats": c.mask_feats.half()},
        "dynamic_weights",
    ),
    "features on meta": (lambda c: {"mask_feats": c.mask_feats.to("meta")}, "dynamic_weights"),
    "weights of rank 1": (lambda c: {"dynamic_weights": c.dynamic_weights[0]}, "dynamic_weights"),
    "weights of rank 3": (
        lambda c: {"dynamic_weights": c.dynamic_weights[None]},
        "dynamic_weights",
    ),
    "short weights": (
        lambda c: {"dynamic_weights": c.dynamic_weights[:, :-1]},
        "dynamic_weights",
    ),
    "float weights": (
        lambda c: {"dynamic_weights": c.dynamic_weights.float()},
        "dynamic_weights",
    ),
    "half weights": (lambda c: {"dynamic_weights": c.dynamic_weights.half()}, "dynamic_weights"),
    "integer weights": (
        lambda c: {"dynamic_weights": c.dynamic_weights.long()},
        "dynamic_weights",
    ),
    "weights on meta": (
        lambda c: {"dynamic_weights": c.dynamic_weights.to("meta")},
        "dynamic_weights",
    ),
    "fewer weights than codes": (
        lambda c: {"dynamic_weights": c.dynamic_weights[:2]},
        "row_codes",
    ),
    "row codes of rank 2": (lambda c: {"row_codes": c.row_codes[0]}, "row_codes"),
    "row codes without padding": (lambda c: {"row_codes": c.row_codes[:, :-1]}, "row_codes"),
    "row codes of fewer instances": (lambda c: {"row_codes": c.row_codes[:1]}, "row_codes"),
    "row codes of too many channels": (
        lambda c: {"row_codes": c.row_codes.repeat(1, 1, 4)},
        "row_codes",
    ),
    "row codes of fewer channels": (
        lambda c: {"row_codes": c.row_codes[..., :1]},
        "column_codes",
    ),
    "float row codes": (lambda c: {"row_codes": c.row_codes.float()}, "row_codes"),
    "row codes on meta": (lambda c: {"row_codes": c.row_codes.to("meta")}, "row_codes"),
    "column codes of rank 2": (lambda c: {"column_codes": c.column_codes[0]}, "column_codes"),
    "column codes without padding": (
        lambda c: {"column_codes": c.column_codes[:, :-1]},
        "column_codes",
    ),
    "column codes of fewer instances": (
        lambda c: {"column_codes": c.column_codes[:1]},
        "column_codes",
    ),
    "column codes of fewer channels": (
        lambda c: {"column_codes": c.column_codes[..., :1]},
        "column_codes",
    ),
    "half column codes": (lambda c: {"column_codes": c.column_codes.half()}, "column_codes"),
    "no heads": (lambda c: {"heads": 0}, "heads"),
    "negative heads": (lambda c: {"heads": -2}, "heads"),
    "heads that do not divide": (lambda c: {"heads": 3}, "heads"),
    "more heads": (lambda c: {"heads": 4}, "dynamic_weights"),
    "no points": (lambda c: {"points": 0}, "points"),
    "negative points": (lambda c: {"points": -1}, "points"),
    "more points": (lambda c: {"points": 3}, "dynamic_weights"),
    "no index": (lambda c: {"image_index": None}, "image_index"),
    "short index": (lambda c: {"image_index": INDEX[:2]}, "image_index"),
    "index of rank 2": (lambda c: {"image_index": INDEX[None]}, "image_index"),
    "int32 index": (lambda c: {"image_index": INDEX.int()}, "image_index"),
    "floating index": (lambda c: {"image_index": INDEX.float()}, "image_index"),
    "index on meta": (lambda c: {"image_index": INDEX.to("meta")}, "image_index"),
    "index too large": (lambda c: {"image_index": INDEX + 1}, "image_index"),
    "negative index": (lambda c: {"image_index": INDEX - 1}, "image_index"),
    "sizes of one image": (lambda c: {"valid_sizes": SIZES[:1]}, "valid_sizes"),
    "sizes of rank 1": (lambda c: {"valid_sizes": SIZES[0]}, "valid_sizes"),
    "int32 sizes": (lambda c: {"valid_sizes": SIZES.int()}, "valid_sizes"),
    "sizes on meta": (lambda c: {"valid_sizes": SIZES.to("meta")}, "valid_sizes"),
    "sizes above the map": (lambda c: {"valid_sizes": SIZES + 1}, "valid_sizes"),
    "negative sizes": (lambda c: {"valid_sizes": SIZES - 4}, "valid_sizes"),
}
# Numbers that only the CPU kernels look at: on a GPU that would stop the device.
READ_ON_THE_CPU = ("index too large", "negative index", "sizes above the map", "negative sizes")
NAMES = [
    pytest.param(name, marks=pytest.mark.host if name in READ_ON_THE_CPU else ())
    for name in MALFORMED
]


@pytest.mark.parametrize("name", NAMES)
def test_a_malformed_call_names_the_argument(name):
    change, word = MALFORMED[name]
    case = make_case(0)
    with pytest.raises((ValueError, RuntimeError), match=word):
        replace(case, **change(case)).call()


@pytest.mark.parametrize("name", [one for one in NAMES if "meta" not in one.values[0]])
def test_the_kernels_refuse_a_malformed_call_by_themselves(name):
    change, _ = MALFORMED[name]
    case = make_case(0)
    arguments = replace(case, **change(case)).arguments()
    with pytest.raises((ValueError, RuntimeError)):
        torch.ops.queryseg.instance_deform_attn(*arguments)
    grad = torch.ones(3, 4, 5, dtype=torch.float64)
    with pytest.raises((ValueError, RuntimeError)):
        torch.ops.queryseg.instance_deform_attn_backward(grad, *arguments)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 4, 5), (3, 20), (3, 1, 4, 5)])
def test_the_backward_kernel_refuses_a_gradient_of_another_shape(shape):
    grad = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="grad_output"):
        torch.ops.queryseg.instance_deform_attn_backward(grad, *make_case(0).arguments())


def test_codes_that_require_gradients_are_refused():
    case = make_case(0)
    for name in ("row_codes", "column_codes"):
        codes = getattr(case, name).clone().requires_grad_()
        with pytest.raises(ValueError, match=f"{name} get no gradient"):
            replace(case, **{name: codes}).call()


@pytest.mark.skipif(not has_kernels("cpu"), reason="pure torch has no such limit")
def test_a_map_of_2_to_the_24_pixels_is_refused():
    case = make_case(0, batch=1, instances=1, height=1, width=1)
    height, width = 4096, 4096
    large = replace(
        case,
        mask_feats=torch.zeros(1, 1, 1, 4).double().expand(1, height, width, 4),
        row_codes=torch.zeros(1, 1, 2).double().expand(1, height + 1, 2),
        column_codes=torch.zeros(1, 1, 2).double().expand(1, width + 1, 2),
        valid_sizes=None,
    )
    with pytest.raises(RuntimeError, match="less than 2\\^24 pixels"):
        large.call()


def test_there_are_at_least_forty_malformed_calls():
    assert len(MALFORMED) >= 40
