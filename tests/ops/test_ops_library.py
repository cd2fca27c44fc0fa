"""How operators find their kernels: with the binary, without it, with other instructions."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from ms_deform_attn_cases import make_case, relative_error
from ms_deform_attn_fused_cases import make_case as make_fused_case

from queryseg.ops import build_info, has_kernels, library, ms_deform_attn
from queryseg.ops.precision import refuse_nondeterminism

SCRIPT = """
import json, sys, warnings
sys.path.insert(0, sys.argv[1])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import queryseg
    import torch
    from queryseg.ops import build_info, has_kernels
    from test_ops_library import expected_results
    results = expected_results()
torch.save(results, sys.argv[2])
messages = [str(one.message) for one in caught if "QuerySeg" in str(one.message)]
print(json.dumps([build_info(), has_kernels("cpu"), messages]))
"""


def run_elsewhere(folder: Path, **environment: str) -> tuple[dict, bool, list[str], list]:
    """Runs the operator in a new process; returns what it says of its kernels and its results."""
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder / "results.pt")],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    info, compiled, messages = json.loads(answer.stdout.splitlines()[-1])
    return info, compiled, messages, torch.load(folder / "results.pt")


def expected_results() -> list[torch.Tensor]:
    results = []
    for seed in range(4):
        case = make_case(seed, channels=(4, 32, 30, 71)[seed], heads=1 + seed, queries=20)
        inputs = [tensor.requires_grad_() for tensor in case.tensors()]
        output = ms_deform_attn(inputs[0], case.shapes, inputs[1], inputs[2])
        results += [output.detach(), *torch.autograd.grad(output.square().sum(), inputs)]
    for seed in range(4):
        fused = make_fused_case(seed, channels=(4, 32, 30, 71)[seed], queries=20, points=2 + seed)
        inputs = [tensor.requires_grad_() for tensor in fused.tensors()]
        output = fused.output()
        results += [output.detach(), *torch.autograd.grad(output.square().sum(), inputs)]
    return results


def test_without_the_binary_pure_torch_gives_the_same_results_and_one_warning(tmp_path):
    info, compiled, messages, results = run_elsewhere(tmp_path, QUERYSEG_NO_EXT="1")
    assert not compiled
    assert info == {"problem": "QUERYSEG_NO_EXT is set"}
    assert len(messages) == 1
    assert "QUERYSEG_NO_EXT is set" in messages[0]
    assert library.BUILD_COMMAND in messages[0]
    for one, other in zip(results, expected_results(), strict=True):
        assert relative_error(one, other) < 1e-13


@pytest.mark.parametrize("capability", ["portable", "avx2"])
def test_every_instruction_set_gives_the_same_results(tmp_path, capability):
    if not has_kernels("cpu"):
        pytest.skip("the kernels are not built")
    info, _, messages, results = run_elsewhere(tmp_path, QUERYSEG_CPU_CAPABILITY=capability)
    best = build_info()["cpu_capability"]
    assert info["cpu_capability"] == (capability if best != "portable" else "portable")
    assert not messages
    for one, other in zip(results, expected_results(), strict=True):
        assert relative_error(one, other) < 1e-13


def test_build_info_describes_the_binary():
    if not has_kernels("cpu"):
        pytest.skip("the kernels are not built")
    info = build_info()
    assert Path(info["path"]).is_file()
    assert info["compiler"].split()[0] in ("gcc", "clang", "msvc")
    assert info["torch"].split(".")[0] == torch.__version__.split(".")[0]
    assert (info["cuda"] == "") == (info["cuda_architectures"] == "")
    assert has_kernels("cuda") == (info["cuda"] != "")
    assert not has_kernels("mps")


def test_a_binary_that_does_not_load_is_reported(monkeypatch, tmp_path):
    (tmp_path / "_C.abi3.so").write_text("not a library")
    monkeypatch.setattr(library, "__file__", str(tmp_path / "ops" / "library.py"))
    binary, problem = library._load_binary()
    assert binary is None
    assert "_C.abi3.so does not load with torch" in problem


def test_a_missing_binary_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "__file__", str(tmp_path / "ops" / "library.py"))
    monkeypatch.setattr(library, "_binary", None)
    monkeypatch.setattr(library, "_problem", library._load_binary()[1])
    assert "were not built" in build_info()["problem"]
    assert not has_kernels("cpu")
    assert not has_kernels("cuda")


def test_the_slow_path_is_announced_once_per_kind_of_device():
    library._warn_slow_path.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for device_type in ("cpu", "cuda", "cpu", "cuda", "mps"):
            library._warn_slow_path(device_type)
    library._warn_slow_path.cache_clear()
    texts = [str(one.message) for one in caught]
    assert ["cuda kernels" in text for text in texts] == [False, True]
    assert "CUDA toolkit" in texts[1]


def test_a_nondeterministic_backward_is_refused_only_on_cuda_and_only_when_asked():
    cuda, cpu = torch.device("cuda:0"), torch.device("cpu")
    refuse_nondeterminism("op", cuda)
    try:
        torch.use_deterministic_algorithms(True)
        refuse_nondeterminism("op", cpu)
        with pytest.raises(RuntimeError, match="adds atomically on CUDA"):
            refuse_nondeterminism("op", cuda)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match="adds atomically on CUDA"):
            refuse_nondeterminism("op", cuda)
    finally:
        torch.use_deterministic_algorithms(False)


def test_autocast_rounds_the_value_only_where_pure_torch_serves_too(monkeypatch):
    monkeypatch.setattr(library, "_warn_slow_path", lambda device_type: None)
    name = "autocast_probe"
    library.define_op(
        f"{name}(Tensor x, Tensor y) -> Tensor",
        fallback=lambda x, y: torch.einsum("ij,jk->ik", x, y),
        fake=lambda x, y: x.new_empty(x.shape[0], y.shape[1]),
    )
    x, y = torch.randn(8, 64), torch.randn(64, 8)
    with torch.autocast("cpu", torch.bfloat16):
        product = getattr(torch.ops.queryseg, name)(x, y)
        assert (x @ y).dtype == torch.bfloat16
    assert product.dtype == torch.float32
    assert relative_error(product, x.double() @ y.double()) < 1e-6
