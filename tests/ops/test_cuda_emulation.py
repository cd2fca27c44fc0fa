"""The emulation that the kernels are tested with sees what a GPU would stumble over."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "emulation"


@pytest.mark.parametrize("barrier", [True, False], ids=["with a barrier", "without a barrier"])
def test_a_missing_barrier_shows_in_the_results(tmp_path, barrier):
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path / "racing.so"
    command = [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", str(FOLDER / "racing.cpp")]
    subprocess.run([*command, "-o", str(library)], check=True)
    seen = (ctypes.c_int * 128)()
    ctypes.CDLL(str(library)).turn_around(seen, ctypes.c_bool(barrier))
    unwritten = [list(seen[side::2]).count(-1) for side in (0, 1)]
    if barrier:
        assert list(seen[::2]) == [*range(1, 64), 0]
        assert list(seen[1::2]) == [63, *range(63)]
    else:
        # Whichever way threads read, up or down, some come before those who write.
        assert min(unwritten) > 5, unwritten
