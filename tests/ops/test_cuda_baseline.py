"""The baseline that the benchmark compiles for a GPU is right and compiles."""

import ctypes
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import nvrtc
import pytest
import torch
from ms_deform_attn_cases import make_case, relative_error

from queryseg.ops.ms_deform_attn import (
    ms_deform_attn_backward_reference,
    ms_deform_attn_reference,
)
from queryseg.tools.op_benchmark.case import Contender
from queryseg.tools.op_benchmark.command import all_cases

HERE = Path(__file__).parent
BASELINE = HERE.parents[1] / "benchmarks" / "cuda_baseline"


class Call(ctypes.Structure):
    """`Call` of emulation/cuda_baseline.cpp."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("batch", "tokens", "queries")),
        *((name, ctypes.c_int) for name in ("heads", "channels", "levels", "points")),
        *((f"array_{i}", ctypes.c_void_p) for i in range(10)),
    ]


def test_its_kernels_equal_the_reference(tmp_path):
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path / "baseline.so"
    command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas"]
    command += [f"-I{BASELINE}", str(HERE / "emulation/cuda_baseline.cpp"), "-o", str(library)]
    subprocess.run(command, check=True)
    case = make_case(0, queries=5, channels=32, levels=3).to(torch.float32, torch.float32)
    value, locations, weights = case.tensors()
    shapes = torch.tensor(case.shapes)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    grad_output, output = torch.randn(2, 5, 64), torch.empty(2, 5, 64)
    grads = [torch.zeros_like(tensor) for tensor in (value, locations, weights)]
    arrays = [value, shapes, starts, locations, weights, output, grad_output, *grads]
    sizes = (2, value.shape[1], 5, 2, 32, 3, 3)
    call = Call(*sizes, *(tensor.data_ptr() for tensor in arrays))
    ctypes.CDLL(str(library)).forward_and_backward(ctypes.byref(call))
    arguments = (value, case.sizes, locations, weights)
    assert relative_error(output, ms_deform_attn_reference(*arguments)) < 1e-5
    expected = ms_deform_attn_backward_reference(grad_output, *arguments)
    for got, wanted in zip(grads, expected, strict=True):
        assert relative_error(got, wanted) < 1e-4


@pytest.mark.skipif(nvrtc.load() is None, reason="no NVRTC 12: pip install nvidia-cuda-nvrtc-cu12")
def test_its_kernels_compile_with_cuda_12():
    source, names = (
        '#include "ms_deform_attn.cuh"\n',
        ["baseline::forward", "baseline::backward<32>"],
    )
    ptx, code, log = nvrtc.compiled(nvrtc.load(), source, "sm_70", BASELINE, names)
    assert ptx.count(b".entry") == 2, log
    assert code


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")
def test_its_operators_compile(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BASELINE.parent))
    baseline = importlib.import_module("cuda_baseline")
    folder = Path(torch.__file__).parent / "include"
    command = ["nvcc", "-std=c++20", "-c", str(baseline.SOURCE), "-o", str(tmp_path / "b.o")]
    command += [*baseline.STABLE_ABI, f"-I{folder}", f"-I{folder}/torch/csrc/api/include"]
    command += ["-arch=sm_90", "-Xcompiler", "-fPIC"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_a_cpu_and_other_operators_have_no_such_baseline(monkeypatch):
    monkeypatch.syspath_prepend(str(BASELINE.parent))
    contenders = importlib.import_module("cuda_baseline").contenders
    ours = Contender("ours", torch.zeros, [torch.zeros(1)] * 3)
    cases = {case.op: case for case in all_cases()}
    assert contenders(cases["ms_deform_attn"], torch.device("cpu"), ours) == []
    assert contenders(cases["quadtree"], torch.device("cuda"), ours) == []
    assert "cuda_baseline" in sys.modules
