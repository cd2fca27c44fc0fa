"""The CUDA sources compile wherever there is a CUDA compiler; no GPU is needed.

nvcc compiles what users build; NVRTC 12, which the package index has, compiles the same kernels for
CUDA 12 and for compute capability 7.0 (V100), which CUDA 13 no longer knows.
"""

import functools
import re
import shutil
import subprocess
from pathlib import Path

import nvrtc
import pytest

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
SOURCES = sorted(CSRC.glob("**/cuda/*.cu"))
HEADERS = sorted(CSRC.glob("**/cuda/*.cuh"))
OPERATORS = sorted({source.parent for source in SOURCES})
ARCHITECTURES = ("75", "80", "86", "90")

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")
needs_nvrtc = pytest.mark.skipif(
    nvrtc.load() is None, reason="no NVRTC 12: pip install nvidia-cuda-nvrtc-cu12"
)


def name_of(path: Path) -> str:
    return str(path.relative_to(CSRC))


def run_nvcc(*options: str) -> None:
    command = ["nvcc", "-std=c++17", f"-I{CSRC}", *options]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "warning" not in answer.stderr, answer.stderr


@pytest.mark.slow
@needs_nvcc
@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_cuda_source_compiles_for_every_architecture(source, tmp_path):
    target = tmp_path / "launch.o"
    codes = [f"-gencode=arch=compute_{one},code=sm_{one}" for one in ARCHITECTURES]
    run_nvcc("-O3", *codes, "-Xcompiler", "-fPIC", "-c", str(source), "-o", str(target))
    assert target.stat().st_size > 10_000


@functools.cache
def kernels_of(folder: Path) -> list[str]:
    """Every instantiation of a kernel that the sources of an operator launch, by nvcc."""
    found = set()
    for source in folder.glob("*.cu"):
        command = ["nvcc", "-std=c++17", f"-I{CSRC}", "-arch=compute_75", "-ptx", str(source)]
        ptx = subprocess.run([*command, "-o", "-"], capture_output=True, text=True, check=True)
        mangled = re.findall(r"\.entry\s+(\w+)", ptx.stdout)
        names = subprocess.run(["c++filt", *mangled], capture_output=True, text=True, check=True)
        found |= {expression(line) for line in names.stdout.splitlines()}
    return sorted(found)


def expression(signature: str) -> str:
    """`"void f<float, 4>(int)"` as the name of the kernel, `"f<float, 4>"`."""
    signature, depth = signature.removeprefix("void "), 0
    for end, letter in enumerate(signature):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            return signature[:end]
    return signature


def test_the_name_of_a_kernel_is_cut_from_its_signature():
    assert expression("void n::f<float, 4>(n::Args<float>, int)") == "n::f<float, 4>"
    assert expression("void f<(n::Kind)1, n::A<int> >(int*)") == "f<(n::Kind)1, n::A<int> >"
    assert expression("void f(int)") == "f"


@pytest.mark.slow
@needs_nvcc
@needs_nvrtc
@pytest.mark.parametrize("folder", OPERATORS, ids=name_of)
@pytest.mark.parametrize("architecture", ["sm_70", "compute_90"])
def test_every_kernel_compiles_with_cuda_12(folder, architecture):
    compiler = nvrtc.load()
    assert nvrtc.version(compiler)[0] == 12
    kernels = kernels_of(folder)
    assert kernels
    source = "".join(f'#include "{name_of(one)}"\n' for one in HEADERS if one.parent == folder)
    ptx, code, log = nvrtc.compiled(compiler, source, architecture, CSRC, kernels)
    assert ptx, log
    assert not re.search("warning(?!: Architectures prior to)", log), log  # V100 is on its way out
    number = architecture.partition("_")[2]
    assert f".target sm_{number}\n".encode() in ptx
    assert ptx.count(b".entry") == len(kernels)
    assert code.startswith(b"\x7fELF") == (architecture == "sm_70")


@needs_nvrtc
def test_what_is_no_cuda_12_is_found():
    """The check has teeth: a header of the host, or an instruction that V100 lacks, fails."""
    compiler = nvrtc.load()
    ptx, _, log = nvrtc.compiled(compiler, "#include <vector>\n", "compute_70", CSRC, [])
    assert not ptx
    assert "vector" in log
    vector = "__global__ void f(float4* to) { atomicAdd(to, *to); }"
    assert not nvrtc.compiled(compiler, vector, "compute_70", CSRC, [])[0]
    assert nvrtc.compiled(compiler, vector, "compute_90", CSRC, [])[0]


def test_every_device_header_belongs_to_a_compiled_source():
    assert len(HEADERS) > 2
    for header in HEADERS:
        assert header.parent in OPERATORS, header


def test_device_code_is_free_of_torch_and_of_toolkit_headers():
    own = {name_of(header) for header in HEADERS}
    allowed = {*own, "common/cuda/device.h", "common/numeric.h", "common/value_type.h"}
    for name in allowed:
        included = re.findall(r'#include\s+[<"]([^>"]+)', (CSRC / name).read_text())
        assert set(included) <= allowed, name
