"""The environment report: what it names, and which cure it gives."""

import sys
from pathlib import Path

import detectron2
import pytest
import torch

import queryseg
from queryseg import ops
from queryseg.tools import collect_env
from queryseg.tools.collect_env import Fact, collect, covers

BUILT = {
    "path": "/site/queryseg/_C.abi3.so",
    "compiler": "g++ 12.2",
    "torch": "2.15.0",
    "cuda": "12.8",
    "cuda_architectures": "8.0,9.0+PTX",
    "cpu_capability": "avx2",
}


def report(monkeypatch, info: dict[str, str], gpu: tuple[int, int] | None) -> dict[str, Fact]:
    monkeypatch.setattr(ops, "build_info", lambda: info)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
    return {fact.title: fact for fact in collect()}


def test_the_report_names_versions_and_places(capsys, detectron2_kind: str):
    assert collect_env.main([]) == 0
    out = capsys.readouterr().out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert queryseg.__version__ in lines["QuerySeg"]
    assert ".".join(map(str, sys.version_info[:3])) in lines["Python"]
    assert torch.__version__ in lines["torch"]
    assert f"{detectron2_kind}, {detectron2.__version__} at " in lines["Detectron2"]
    assert str(Path(detectron2.__file__).parent) in lines["Detectron2"]
    for title in ("C++ compiler", "CUDA toolkit", "kernels", "numpy", "pycocotools", "environment"):
        assert title in lines
    assert "To mend:" in out or "Nothing is missing." in out


def test_with_kernels_and_no_gpu_nothing_is_to_be_mended(monkeypatch):
    facts = report(monkeypatch, BUILT | {"cuda": "", "cuda_architectures": ""}, gpu=None)
    assert facts["kernels"].value == "/site/queryseg/_C.abi3.so"
    assert facts["built with"].value == "g++ 12.2, torch 2.15.0, CUDA left out"
    assert facts["for CPU"].value == "avx2"
    assert facts["for GPU"].value == "none"
    assert not any(facts[title].cure for title in ("kernels", "built with", "for CPU", "for GPU"))


def test_missing_kernels_come_with_the_command_that_builds_them(monkeypatch):
    monkeypatch.delenv("QUERYSEG_NO_EXT", raising=False)
    monkeypatch.setattr(collect_env, "_compiler", lambda: "g++ 12.2")
    facts = report(monkeypatch, {"problem": "they were not built"}, gpu=None)
    assert "not in use: they were not built" in facts["kernels"].value
    assert facts["kernels"].cure.startswith("pip install --no-build-isolation")
    monkeypatch.setattr(collect_env, "_compiler", lambda: "")
    cure = report(monkeypatch, {"problem": "x"}, gpu=None)["kernels"].cure
    assert cure.startswith("install a C++ compiler")
    assert "then pip install --no-build-isolation" in cure
    monkeypatch.setenv("QUERYSEG_NO_EXT", "1")
    cure = report(monkeypatch, {"problem": "x"}, gpu=None)["kernels"].cure
    assert cure.startswith("unset QUERYSEG_NO_EXT")


def test_a_gpu_without_kernels_for_it_comes_with_a_cure(monkeypatch):
    monkeypatch.setattr(collect_env, "_cuda_toolkit", lambda: "")
    cpu_only = BUILT | {"cuda": "", "cuda_architectures": ""}
    cure = report(monkeypatch, cpu_only, gpu=(9, 0))["built with"].cure
    assert cure.startswith(f"install the CUDA {torch.version.cuda} toolkit")
    monkeypatch.setattr(collect_env, "_cuda_toolkit", lambda: "release 12.8")
    assert report(monkeypatch, cpu_only, gpu=(9, 0))["built with"].cure.startswith("pip install")
    facts = report(monkeypatch, BUILT, gpu=(7, 5))
    assert facts["for GPU"].cure.startswith("TORCH_CUDA_ARCH_LIST=7.5 pip install")
    assert not facts["built with"].cure
    assert not report(monkeypatch, BUILT, gpu=(9, 0))["for GPU"].cure


@pytest.mark.parametrize(
    ("architectures", "capability", "expected"),
    [
        ("7.0;7.5;8.0;8.6;9.0+PTX", (7, 0), True),
        ("7.0;7.5;8.0;8.6;9.0+PTX", (8, 9), True),
        ("7.0;7.5;8.0;8.6;9.0+PTX", (10, 0), True),
        ("7.0;7.5;8.0;8.6;9.0+PTX", (6, 1), False),
        ("8.6", (8, 0), False),
        ("8.0,9.0a", (9, 0), True),
        ("8.0", (9, 0), False),
        ("native", (9, 0), True),
    ],
)
def test_machine_code_runs_within_a_major_number_and_ptx_on_later_gpus(
    architectures: str, capability: tuple[int, int], expected: bool
):
    assert covers(architectures, capability) is expected


def test_a_missing_library_comes_with_its_install_command(monkeypatch):
    versions = {"opencv-python": "5.0", "numpy": "2.4"}
    monkeypatch.setattr(collect_env, "_version", lambda name: versions.get(name, ""))
    facts = {fact.title: fact for fact in collect_env._libraries()}
    assert facts["shapely"] == Fact("shapely", "not installed", "pip install shapely")
    assert facts["numpy"] == Fact("numpy", "2.4")
    assert facts["opencv-python"].value == "5.0"
    assert "opencv-python-headless" not in facts, "one of the two is enough"


def test_a_tool_that_does_not_exist_or_fails_gives_no_line():
    assert collect_env._first_line("no-such-program-here") == ""
    assert collect_env._first_line(sys.executable, "-c", "raise SystemExit(1)") == ""
    assert collect_env._line_with("b", sys.executable, "-c", "print('a\\n b c ')") == "b c"
