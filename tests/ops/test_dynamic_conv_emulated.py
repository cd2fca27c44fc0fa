"""The CUDA kernels of dynamic_conv, run on the host, against the pure-torch reference."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from dynamic_conv_cases import Case, make_case, operator_arguments, relative_error

from queryseg.ops.dynamic_conv import (
    dynamic_conv_backward_reference,
    dynamic_conv_reference,
)

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Call(ctypes.Structure):
    """`Call` of emulation/dynamic_conv.cpp."""

    _fields_ = [
        *(
            (name, ctypes.c_longlong)
            for name in ("instances", "positions", "channels", "inner", "rows", "as_map")
        ),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("features", "dynamic_weights")),
        ("norms", ctypes.c_void_p * 4),
        *(
            (name, ctypes.c_void_p)
            for name in ("grad_output", "output", "grad_features", "grad_weights", "norm_shares")
        ),
    ]


@pytest.fixture(scope="session")
def emulated_dynamic_conv(tmp_path_factory) -> ctypes.CDLL:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("emulation") / "dynamic_conv.so"
    command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas"]
    command += [f"-I{CSRC}", f"-I{HERE / 'emulation'}", str(HERE / "emulation/dynamic_conv.cpp")]
    subprocess.run([*command, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def run_emulated(
    library: ctypes.CDLL, case: Case, grad_output: torch.Tensor, rows: int
) -> list[torch.Tensor]:
    """Output and gradients by the emulated kernels, in tiles of `rows` positions."""
    tensors = [tensor.contiguous() for tensor in case.tensors]
    norm_values = 2 * sum(case.sizes)
    results = [
        torch.full_like(grad_output, 7),
        torch.full_like(tensors[0], 7),
        torch.full_like(tensors[1], 7),
        tensors[2].new_full((len(grad_output), norm_values), 7),
    ]
    inner, channels = case.sizes
    call = Call(
        *(len(grad_output), grad_output.shape[1], channels, inner, rows),
        *(case.features.dim() == 4, case.eps),
        *(tensor.data_ptr() for tensor in tensors[:2]),
        (ctypes.c_void_p * 4)(*(tensor.data_ptr() for tensor in tensors[2:])),
        *(tensor.data_ptr() for tensor in (grad_output, *results)),
    )
    library.forward_and_backward(ctypes.byref(call), DTYPES.index(grad_output.dtype))
    return results


CASES = {
    "a box head": {"channels": 40, "inner": 12, "side": (7, 7)},
    "rows": {"channels": 33, "inner": 17, "side": (5, 7), "as_map": False},
    "more than a tile": {"channels": 70, "inner": 66, "side": (2, 2)},
    "one of each": {"channels": 1, "inner": 1, "side": (1, 1)},
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_cuda_kernels_equal_the_reference(emulated_dynamic_conv, name, dtype):
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    case = make_case(1, instances=2, **CASES[name]).to(dtype, compute)
    case.eps = 0.1
    wide = case.to(torch.float64)
    positions = dynamic_conv_reference(*operator_arguments(wide)).shape
    grad_output = torch.randn(positions, generator=torch.Generator().manual_seed(2)).to(dtype)
    expected = [
        dynamic_conv_reference(*operator_arguments(wide)),
        *dynamic_conv_backward_reference(grad_output.double(), *operator_arguments(wide)),
    ]
    accuracy = 1e-12 if compute == torch.float64 else 1e-5
    rounding = {torch.float16: 1e-3, torch.bfloat16: 5e-3}.get(dtype, accuracy)
    for rows in (32, 5) if name == "a box head" else (16,):
        got = run_emulated(emulated_dynamic_conv, case, grad_output, rows)
        for one, other in zip(got, expected, strict=True):
            assert relative_error(one, other) < (accuracy if one is got[3] else rounding), rows


def test_a_nan_stays_in_its_position(emulated_dynamic_conv):
    case = make_case(0, instances=2, channels=20, inner=7, dtype=torch.float32)
    expected = dynamic_conv_reference(*operator_arguments(case))
    case.features[1, 3, 1, 1] = float("nan")
    output = run_emulated(emulated_dynamic_conv, case, torch.ones_like(expected), 4)[0]
    changed = torch.zeros(2, 9, dtype=torch.bool)
    changed[1, 4] = True
    assert output[changed].isnan().all()
    assert relative_error(output[~changed], expected[~changed]) < 1e-6
