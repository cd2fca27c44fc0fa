"""The CUDA sources compile wherever there is a CUDA compiler; no GPU is needed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
SOURCES = sorted(CSRC.glob("**/cuda/*.cu"))
ARCHITECTURES = ("75", "80", "86", "90")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_cuda_source_compiles_for_every_architecture(source, tmp_path):
    target = tmp_path / "launch.o"
    codes = [f"-gencode=arch=compute_{one},code=sm_{one}" for one in ARCHITECTURES]
    command = ["nvcc", "-std=c++17", "-O3", f"-I{CSRC}", *codes, "-Xcompiler", "-fPIC"]
    answer = subprocess.run(
        [*command, "-c", str(source), "-o", str(target)], capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert "warning" not in answer.stderr
    assert target.stat().st_size > 10_000


def test_device_code_is_free_of_torch_and_of_toolkit_headers():
    headers = [
        *CSRC.glob("**/cuda/*.cuh"),
        CSRC / "common/cuda/device.h",
        CSRC / "common/numeric.h",
        CSRC / "common/value_type.h",
    ]
    assert len(headers) > 2
    for header in headers:
        included = re.findall(r'#include\s+[<"]([^>"]+)', header.read_text())
        allowed = {"common/cuda/device.h", "common/numeric.h", "common/value_type.h"}
        others = [name for name in included if name not in allowed]
        assert all(name.endswith(".cuh") for name in others), header
