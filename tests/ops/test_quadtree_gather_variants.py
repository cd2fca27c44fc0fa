"""Every instruction set and pure torch give the same sparse RoIAlign."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from quadtree_gather_cases import make_case, relative_error

from queryseg.ops import has_kernels

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import queryseg
import torch
from queryseg.ops import build_info
from test_quadtree_gather_variants import results
torch.save([build_info(), results()], sys.argv[2])
"""


def results() -> list[torch.Tensor]:
    """Of cases that fill registers, leave a rest, and have less channels than a register."""
    found = []
    for seed, channels in enumerate((1, 7, 16, 71, 128, 261)):
        for dtype in (torch.float64, torch.float32):
            found += make_case(seed, channels=channels, nodes=20, dtype=dtype).output_and_grads()
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
    for one, two in zip(results(), other, strict=True):
        assert relative_error(two, one) < (1e-13 if one.dtype == torch.float64 else 1e-5)
