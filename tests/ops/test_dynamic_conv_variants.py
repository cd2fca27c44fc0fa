"""Every instruction set and pure torch give the same dynamic convolution."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dynamic_conv_cases import make_case, relative_error

from queryseg.ops import has_kernels

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import queryseg
import torch
from queryseg.ops import build_info
from test_dynamic_conv_variants import results
torch.save([build_info(), results()], sys.argv[2])
"""


def results() -> list[torch.Tensor]:
    """Of cases that fill registers and tiles, leave a rest, or have less than one."""
    found = []
    for seed, (channels, inner) in enumerate(((1, 3), (7, 16), (16, 32), (71, 8), (128, 48))):
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            for side in ((7, 7), (1, 5)):
                case = make_case(
                    seed, channels=channels, inner=inner, side=side, as_map=seed % 2 == 0
                )
                case.eps = 0.1
                norm_dtype = dtype if dtype == torch.float64 else torch.float32
                found += case.to(dtype, norm_dtype).output_and_grads()
    return found


@pytest.mark.parametrize("variable", ["portable", "avx2", "pure torch"])
def test_every_variant_gives_the_same_results(tmp_path, variable):
    if not has_kernels("cpu"):
        pytest.skip("the kernels are not built")
    pure = variable == "pure torch"
    chosen = {"QUERYSEG_NO_EXT": "1"} if pure else {"QUERYSEG_CPU_CAPABILITY": variable}
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path / "results.pt")],
        env={**os.environ, "OMP_NUM_THREADS": "1", **chosen},
        check=True,
    )
    info, other = torch.load(tmp_path / "results.pt")
    assert ("problem" in info) == pure
    assert info.get("cpu_capability", variable) in (variable, "portable")
    accuracy = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3}
    for one, two in zip(results(), other, strict=True):
        assert relative_error(two, one) < accuracy.get(one.dtype, 5e-3)
