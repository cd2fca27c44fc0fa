"""What setup.py decides to build on machines that lack something."""

import importlib.util
import stat
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SETUP = Path(__file__).parents[2] / "setup.py"
VARIABLES = ("QUERYSEG_NO_EXT", "FORCE_CUDA", "CUDA_HOME", "CUDA_PATH", "CXX")


@pytest.fixture
def setup_module(monkeypatch) -> ModuleType:
    for name in (*VARIABLES, "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("queryseg_setup", SETUP)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "queryseg_setup", module)
    spec.loader.exec_module(module)
    return module


def fake_torch(cuda: str | None, gpu: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        version=SimpleNamespace(cuda=cuda), cuda=SimpleNamespace(is_available=lambda: gpu)
    )


def make_toolkit(root: Path, version: str, headers: bool = True) -> Path:
    """A toolkit whose nvcc knows only its version."""
    nvcc = root / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(
        '#!/bin/sh\ncase "$1" in --version) echo "Cuda compilation tools, release '
        f'{version}, V{version}.1";; *) echo "#$ TOP={root}";; esac\n'
    )
    nvcc.chmod(nvcc.stat().st_mode | stat.S_IEXEC)
    if headers:
        (root / "include").mkdir()
        (root / "include" / "cuda_runtime.h").write_text("")
    return root


def only_toolkit(module: ModuleType, monkeypatch, root: Path) -> None:
    monkeypatch.setattr(module, "toolkit_candidates", lambda: [root])


def test_queryseg_no_ext_builds_nothing_and_says_so(setup_module, monkeypatch):
    monkeypatch.setenv("QUERYSEG_NO_EXT", "1")
    plan = setup_module.make_plan()
    assert not plan.kernels
    assert "unset it" in plan.missing[0]


def test_without_a_compiler_nothing_is_built_and_the_cure_is_named(setup_module, monkeypatch):
    monkeypatch.setenv("PATH", "")
    plan = setup_module.make_plan()
    assert not plan.kernels
    assert len(plan.missing) == 1
    assert "apt install g++" in plan.missing[0]


def test_a_compiler_that_does_not_exist_is_named(setup_module, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    plan = setup_module.make_plan()
    assert not plan.kernels
    assert "no-such-compiler" in plan.missing[0]


def test_force_cuda_0_builds_for_the_cpu_without_a_word(setup_module, monkeypatch, tmp_path):
    only_toolkit(setup_module, monkeypatch, make_toolkit(tmp_path / "cuda", "13.0"))
    monkeypatch.setenv("FORCE_CUDA", "0")
    plan = setup_module.Plan()
    setup_module.plan_cuda(plan, fake_torch("13.2", gpu=True))
    assert plan.cuda_home is None
    assert not plan.missing


def test_a_toolkit_of_the_right_major_version_is_used(setup_module, monkeypatch, tmp_path):
    root = make_toolkit(tmp_path / "cuda", "13.0")
    only_toolkit(setup_module, monkeypatch, root)
    plan = setup_module.Plan()
    setup_module.plan_cuda(plan, fake_torch("13.2"))
    assert (plan.cuda_home, plan.cuda_version, plan.missing) == (root, "13.0", [])
    assert plan.architectures == "7.5,8.0,8.6,9.0+PTX"


def test_cuda_12_adds_volta_to_the_default_architectures(setup_module, monkeypatch, tmp_path):
    only_toolkit(setup_module, monkeypatch, make_toolkit(tmp_path / "cuda", "12.8"))
    plan = setup_module.Plan()
    setup_module.plan_cuda(plan, fake_torch("12.6"))
    assert plan.architectures.startswith("7.0,7.5")


def test_torch_cuda_arch_list_is_honoured(setup_module, monkeypatch, tmp_path):
    only_toolkit(setup_module, monkeypatch, make_toolkit(tmp_path / "cuda", "13.0"))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0 9.0+PTX")
    plan = setup_module.Plan()
    setup_module.plan_cuda(plan, fake_torch("13.2"))
    assert plan.architectures == "8.0,9.0+PTX"


def test_another_major_version_falls_back_to_the_cpu_and_says_why(
    setup_module, monkeypatch, tmp_path
):
    only_toolkit(setup_module, monkeypatch, make_toolkit(tmp_path / "cuda", "12.8"))
    plan = setup_module.Plan()
    setup_module.plan_cuda(plan, fake_torch("13.2"))
    assert plan.cuda_home is None
    assert "12.8" in plan.missing[0]
    assert "CUDA 13 toolkit" in plan.missing[0]


def test_a_toolkit_without_headers_does_not_count(setup_module, monkeypatch, tmp_path):
    only_toolkit(setup_module, monkeypatch, make_toolkit(tmp_path / "cuda", "13.0", headers=False))
    monkeypatch.setenv("FORCE_CUDA", "1")
    plan = setup_module.Plan()
    setup_module.plan_cuda(plan, fake_torch("13.2"))
    assert plan.cuda_home is None
    assert "set CUDA_HOME" in plan.missing[0]


def test_a_torch_without_cuda_needs_no_toolkit_unless_forced(setup_module, monkeypatch):
    plan = setup_module.Plan()
    setup_module.plan_cuda(plan, fake_torch(None))
    assert not plan.missing
    monkeypatch.setenv("FORCE_CUDA", "1")
    setup_module.plan_cuda(plan, fake_torch(None))
    assert "CUDA build of torch" in plan.missing[0]


def test_the_toolkit_is_found_through_an_nvcc_wrapper(setup_module, monkeypatch, tmp_path):
    root = make_toolkit(tmp_path / "toolkit", "13.0")
    wrapper = tmp_path / "elsewhere" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {root}/bin/nvcc "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/bin:/usr/bin")
    assert setup_module.find_toolkit() == (root, "13.0")


def test_every_package_is_installed_under_one_name(setup_module):
    names = setup_module.packages()
    assert {"queryseg", "queryseg.ops", "queryseg.projects", "queryseg.configs"} <= set(names)
