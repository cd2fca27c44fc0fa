"""The CUDA kernels, run on the host thread by thread, against the pure-torch reference."""

import ctypes

import pytest
import torch
from instance_deform_attn_cases import Case, make_case, relative_error
from test_cuda_kernels_emulated import ATOMIC_FLOATS, compiled

from queryseg.ops.instance_deform_attn import (
    instance_deform_attn_backward_reference,
    instance_deform_attn_reference,
)


class Dims(ctypes.Structure):
    """`device::InstanceDims`."""

    _fields_ = [
        *((name, ctypes.c_longlong) for name in ("instances", "batch")),
        *(
            (name, ctypes.c_int)
            for name in (
                *("height", "width", "channels", "heads", "points", "row_channels", "weights"),
                *("blocks", "offset_bias", "attn_weight", "attn_bias", "out_weight", "out_bias"),
            )
        ),
    ]


class Call(ctypes.Structure):
    """`Call` of emulation/instance_deform_attn.cpp."""

    _fields_ = [("dims", ctypes.POINTER(Dims))] + [
        (name, ctypes.c_void_p)
        for name in (
            *("mask_feats", "dynamic_weights", "row_codes", "column_codes"),
            *("image_index", "valid_sizes"),
            *("output", "grad_output", "grad_feats", "grad_weights"),
        )
    ]


@pytest.fixture(scope="session")
def emulated(tmp_path_factory, request) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("emulation")
    return compiled("instance_deform_attn.cpp", folder, request.param)


def dims_of(case: Case) -> Dims:
    batch, height, width, channels = case.mask_feats.shape
    instances, weights = case.dynamic_weights.shape
    rows = case.heads * case.points
    ends = [2 * rows * channels, 2 * rows, rows * channels, rows, channels]
    starts = torch.tensor(ends).cumsum(0).tolist()
    return Dims(
        *(instances, batch, height, width, channels, case.heads, case.points),
        *(case.row_codes.shape[2], weights, 0, *starts),
    )


def run_emulated(
    emulated: ctypes.CDLL, case: Case, grad: torch.Tensor, variant: int
) -> list[torch.Tensor]:
    """Output and gradients by the emulated kernels."""
    inputs = [case.mask_feats, case.dynamic_weights, case.row_codes, case.column_codes]
    inputs += [case.image_index, case.valid_sizes]
    inputs = [None if tensor is None else tensor.contiguous() for tensor in inputs]
    results = [torch.full_like(grad, 7), torch.zeros_like(inputs[0]), torch.zeros_like(inputs[1])]
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in inputs]
    call = Call(
        ctypes.pointer(dims_of(case)),
        *pointers,
        *(tensor.data_ptr() for tensor in (results[0], grad, *results[1:])),
    )
    emulated.forward_and_backward(ctypes.byref(call), variant)
    return results


CASES = {
    "SOIT": {"channels": 8, "heads": 4, "points": 4, "height": 9, "width": 31},
    "one pixel": {"channels": 4, "heads": 2, "points": 3, "height": 1, "width": 1},
    "wide heads": {"channels": 18, "heads": 2, "points": 2, "height": 3, "width": 7},
    "long vectors": {"channels": 30, "heads": 3, "points": 4, "height": 3, "width": 5},
    "several tiles": {"channels": 3, "heads": 3, "points": 1, "height": 25, "width": 90},
    "whole maps": {"channels": 8, "heads": 4, "points": 1, "row_channels": 0, "padded": False},
}


@ATOMIC_FLOATS
@pytest.mark.parametrize("name", CASES)
def test_emulated_kernels_equal_the_reference(emulated, name):
    case = make_case(1, instances=2, **CASES[name])
    grad = torch.randn(
        2, *case.mask_feats.shape[1:3], generator=torch.Generator().manual_seed(2)
    ).double()
    arguments = case.arguments()
    expected = [
        instance_deform_attn_reference(*arguments),
        *instance_deform_attn_backward_reference(grad, *arguments),
    ]
    soit = case.mask_feats.shape[3] == 8 and case.heads == 4
    for variant in (0, 1, 2) if soit else (0, 1):
        dtype = torch.float64 if variant == 0 else torch.float32
        got = run_emulated(emulated, case.to(dtype), grad.to(dtype), variant)
        for one, other in zip(got, expected):
            assert relative_error(one, other) < (1e-12 if variant == 0 else 3e-5), variant


@ATOMIC_FLOATS
def test_an_instance_of_no_image_gets_nan_and_gives_no_gradient(emulated):
    case = make_case(3, instances=3, channels=8, heads=4, points=4)
    case.image_index[1] = 2
    grad = torch.ones(3, *case.mask_feats.shape[1:3])
    output, grad_feats, grad_weights = run_emulated(emulated, case.to(torch.float32), grad, 2)
    assert output[1].isnan().all()
    assert output[::2].isfinite().all()
    assert grad_feats.isfinite().all()
    assert not grad_weights[1].any()
    assert grad_weights[::2].any()


@ATOMIC_FLOATS
def test_valid_sizes_are_cut_to_the_map(emulated):
    case = make_case(4, instances=2, channels=8, heads=4, points=4)
    case.valid_sizes = torch.tensor([[100, 100], [-5, 3]])
    cut = case.valid_sizes.clamp(min=0, max=5).minimum(torch.tensor([4, 5]))
    grad = torch.ones(2, *case.mask_feats.shape[1:3], dtype=torch.float64)
    outputs = run_emulated(emulated, case, grad, 0)
    case.valid_sizes = cut
    expected = instance_deform_attn_reference(*case.arguments())
    assert relative_error(outputs[0], expected) < 1e-12


@ATOMIC_FLOATS
def test_a_first_point_of_weight_zero_leaves_the_others_their_weights(emulated):
    case = make_case(5, instances=2, channels=8, heads=4, points=4).to(torch.float32)
    layers = dims_of(case)
    case.dynamic_weights[:, layers.attn_bias] = float("-inf")
    grad = torch.ones(2, *case.mask_feats.shape[1:3])
    expected = instance_deform_attn_reference(*case.arguments())
    assert expected.isfinite().all()
    for variant in (1, 2):
        output, grad_feats, _ = run_emulated(emulated, case, grad, variant)
        assert relative_error(output, expected) < 3e-5
        assert grad_feats.isfinite().all()
