"""The CUDA kernels, run on the host thread by thread, against the pure-torch reference."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from queryseg.ops.ms_deform_attn import (
    ms_deform_attn_backward_reference,
    ms_deform_attn_reference,
)

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
ATOMIC_FLOATS = pytest.mark.parametrize(
    "emulated", [1, 4], ids=["one float an addition", "four floats an addition"], indirect=True
)


class Level(ctypes.Structure):
    """`device::DeviceLevel`."""

    _fields_ = [("start", ctypes.c_int), ("height", ctypes.c_int), ("width", ctypes.c_int)]


class Shape(ctypes.Structure):
    """`device::DeviceShape`."""

    _fields_ = [
        ("rows", ctypes.c_longlong),
        ("tokens", ctypes.c_longlong),
        ("queries", ctypes.c_longlong),
        ("heads", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("levels", ctypes.c_int),
        ("points", ctypes.c_int),
        ("level", Level * 64),
    ]


class Call(ctypes.Structure):
    """`Call` of emulation/ms_deform_attn.cpp."""

    _fields_ = [("shape", ctypes.POINTER(Shape))] + [
        (name, ctypes.c_void_p)
        for name in (
            "value",
            "locations",
            "weights",
            "output",
            "grad_output",
            "grad_value",
            "grad_locations",
            "grad_weights",
        )
    ]


def compiled(source: str, folder: Path, atomic_floats: int) -> ctypes.CDLL:
    """One of the emulations, as for a GPU that adds so many floats at once."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = folder / "emulated.so"
    command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas"]
    command += [f"-DQUERYSEG_ATOMIC_FLOATS={atomic_floats}"]
    command += [f"-I{CSRC}", f"-I{HERE / 'emulation'}", str(HERE / "emulation" / source)]
    subprocess.run([*command, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="session")
def emulated(tmp_path_factory, request) -> ctypes.CDLL:
    return compiled("ms_deform_attn.cpp", tmp_path_factory.mktemp("emulation"), request.param)


def describe(sizes: list[int], value: torch.Tensor, locations: torch.Tensor) -> Shape:
    batch, tokens, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    levels, start = (Level * 64)(), 0
    for i, (height, width) in enumerate(zip(sizes[::2], sizes[1::2])):
        levels[i] = Level(start, height, width)
        start += height * width
    rows = batch * queries * heads
    return Shape(rows, tokens, queries, heads, channels, len(sizes) // 2, points, levels)


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


VARIANTS = {  # of emulation/ms_deform_attn.cpp, and channels that fill a group or do not
    "scalar": (0, 5),
    "vectors of 4 lanes": (1, 32),
    "part of 4 lanes": (1, 24),
    "vectors of 8 lanes": (2, 64),
    "part of 8 lanes": (2, 40),
    "half vectors of 8 lanes": (3, 32),
}


@ATOMIC_FLOATS
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cuda_kernels_equal_the_reference(emulated, dtype, variant):
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    sizes = [5, 7, 3, 4, 1, 1]
    heads, queries, points = 3, 11, 3
    variant, channels = VARIANTS[variant]
    value = torch.randn(2, 48, heads, channels).to(dtype)
    locations = (1.4 * torch.rand(2, queries, heads, 3, points, 2) - 0.2).to(compute)
    locations[0, 0, 0, 0, 0] = float("nan")
    locations[0, 1, 0, 0, 0] = float("inf")
    weights = torch.randn(2, queries, heads, 3, points).to(compute)
    grad_output = torch.randn(2, queries, heads * channels).to(dtype)
    output = torch.full_like(grad_output, float("nan"))
    grad_value = torch.zeros(value.shape, dtype=compute)
    grad_locations, grad_weights = (
        torch.full_like(tensor, float("nan")) for tensor in (locations, weights)
    )
    shape = describe(sizes, value, locations)
    tensors = (value, locations, weights, output, grad_output, grad_value)
    tensors += (grad_locations, grad_weights)
    call = Call(ctypes.pointer(shape), *(tensor.data_ptr() for tensor in tensors))
    emulated.forward_and_backward(ctypes.byref(call), DTYPES.index(dtype), variant)

    wide = value.to(compute)
    expected = ms_deform_attn_reference(wide, sizes, locations, weights)
    grads = ms_deform_attn_backward_reference(
        grad_output.to(compute), wide, sizes, locations, weights
    )
    accuracy = 1e-12 if compute == torch.float64 else 1e-5
    rounding = {torch.float16: 1e-3, torch.bfloat16: 5e-3}.get(dtype, accuracy)
    assert relative_error(output, expected) < rounding
    assert relative_error(grad_value, grads[0]) < accuracy
    assert relative_error(grad_locations, grads[1]) < 10 * accuracy
    assert relative_error(grad_weights, grads[2]) < accuracy
