"""The CUDA kernels of quadtree_gather, run on the host, against the pure-torch reference."""

import ctypes

import pytest
import torch
from quadtree_gather_cases import make_case, operator_arguments, relative_error
from test_cuda_kernels_emulated import ATOMIC_FLOATS, DTYPES, compiled

from queryseg.ops.quadtree_gather import (
    quadtree_gather_backward_reference,
    quadtree_gather_reference,
)

NUMBERS = ("nodes", "images", "instances", "levels", "maps", "channels")
POINTERS = ("windows", "bins", "index", "level", "sizes")
RESULTS = ("pixels", "grad_pixels", "output", "grad_output")


class Call(ctypes.Structure):
    """`Call` of emulation/quadtree.cpp."""

    _fields_ = [
        *((name, ctypes.c_longlong) for name in NUMBERS),
        *((name, ctypes.c_void_p) for name in (*POINTERS, *RESULTS)),
    ]


@pytest.fixture(scope="session")
def emulated(tmp_path_factory, request) -> ctypes.CDLL:
    return compiled("quadtree.cpp", tmp_path_factory.mktemp("emulation"), request.param)


def addresses(tensors: list[torch.Tensor]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def forward_and_backward(
    library: ctypes.CDLL, arguments: tuple, grad_output: torch.Tensor, wide: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Output and gradients of the features for the arguments of the operator."""
    features, windows, bins, index, level = arguments
    output = torch.full_like(grad_output, float("nan"))
    grads = [torch.zeros(feature.shape, dtype=windows.dtype) for feature in features]
    sizes = torch.tensor([feature.shape[1:3] for feature in features])
    pixels, grad_pixels = addresses(features), addresses(grads)
    call = Call(
        *(len(index), len(features[0]), *bins.shape[:2], len(features), output.shape[1]),
        *(tensor.data_ptr() for tensor in (windows, bins, index, level, sizes)),
        ctypes.cast(pixels, ctypes.c_void_p),
        ctypes.cast(grad_pixels, ctypes.c_void_p),
        output.data_ptr(),
        grad_output.data_ptr(),
    )
    library.forward_and_backward(ctypes.byref(call), DTYPES.index(output.dtype), wide)
    return output, grads


@ATOMIC_FLOATS
@pytest.mark.parametrize(
    ("wide", "channels"),
    [(False, 5), (True, 256), (True, 264)],
    ids=["scalar", "whole vectors", "vectors"],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cuda_kernels_equal_the_reference(emulated, dtype, wide, channels):
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    case = make_case(1, channels=channels, instances=4, nodes=20, dtype=dtype)
    case.feature_level[0] = 0
    case.boxes[0] = torch.tensor([-20.0, -17.0, 21.0, 30.0])
    case.boxes[1, 0] = float("nan")
    features, *nodes = operator_arguments(case)
    features = [feature.contiguous() for feature in features]
    grad_output = torch.randn(20, features[0].shape[3]).to(dtype)
    output, grads = forward_and_backward(emulated, (features, *nodes), grad_output, wide)

    sizes = [size for feature in features for size in feature.shape[1:3]]
    expected = quadtree_gather_reference([feature.to(compute) for feature in features], *nodes)
    expected_grads = quadtree_gather_backward_reference(grad_output.to(compute), 2, sizes, *nodes)
    accuracy = 1e-12 if compute == torch.float64 else 1e-5
    rounding = {torch.float16: 1e-3, torch.bfloat16: 5e-3}.get(dtype, accuracy)
    assert relative_error(output, expected) < rounding
    for one, other in zip(grads, expected_grads, strict=True):
        assert relative_error(one, other) < accuracy


@ATOMIC_FLOATS
def test_numbers_that_refer_to_nothing_give_zeros(emulated):
    case = make_case(0)
    case.boxes[:] = torch.tensor([0.0, 0.0, 64.0, 64.0])
    features, windows, bins, index, level = operator_arguments(case)
    features = [feature.contiguous() for feature in features]
    index[0, 0], index[1, 0], level[2], level[3] = -1, 10**9, -1, 10**9
    bins[1, :, 0] = 2
    bins[2, :, 1] = -1
    known = (index[:, 0] == 0) & (level >= 0) & (level < 3)
    grad_output = torch.ones(12, 4, dtype=torch.float64)
    output, grads = forward_and_backward(
        emulated, (features, windows, bins, index, level), grad_output, False
    )
    assert known.sum() == 2
    assert output[known].all()
    assert not output[~known].any()
    # Weights sum to one: what reaches the maps is the gradient of the known nodes.
    assert abs(sum(grad.sum().item() for grad in grads) - 8) < 1e-12
