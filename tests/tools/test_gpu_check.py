"""The GPU check: its plan, its summary, and what it says where there is no GPU."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from queryseg.engine import apply_overrides, load_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "benchmarks/gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line_and_fails(gpu_check, capsys, tmp_path):
    assert gpu_check.main(["--output", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert printed.startswith("gpu-check: no CUDA GPU")
    assert not list(tmp_path.iterdir())


def test_the_plan_covers_build_tests_bundles_trainings_and_benchmark(gpu_check, tmp_path):
    steps = {step.name: step for step in gpu_check.plan("cuda", tmp_path, 0, 50)}
    assert list(steps) == [
        "build",
        "operator tests",
        "golden bundles",
        "shapes",
        "train float32",
        "train float16",
        "train bfloat16",
        "operator benchmark",
    ]
    assert steps["build"].environment == {"QUERYSEG_REQUIRE_EXT": "1", "FORCE_CUDA": "1"}
    for step in steps.values():
        for word in step.command:
            assert not word.endswith(".py") or (ROOT / word).is_file(), word


@pytest.mark.parametrize(
    ("device", "reduced"),
    [("cuda", ["float16", "bfloat16"]), ("cpu", ["bfloat16"])],  # no CPU computes float16 in time
)
def test_the_trainings_differ_in_their_precision_only(gpu_check, tmp_path, device, reduced):
    precisions = []
    for step in gpu_check.plan(device, tmp_path, 7, 1):
        if not step.name.startswith("train"):
            continue
        at = step.command.index("--config-file") + 1
        overrides = step.command[at + 1 :]
        cfg = apply_overrides(load_config(ROOT / step.command[at]), overrides)
        assert cfg.train.max_iter == 7
        assert cfg.train.device == device
        precisions.append((cfg.train.amp.enabled, cfg.train.amp.dtype))
        assert step.results == Path(cfg.train.output_dir, "results.json")
        assert step.least_ap == 0.0, "the AP of a training cut short says nothing"
    assert len(precisions) == 1 + len(reduced)
    whole = gpu_check.plan(device, tmp_path, 0, 1)
    assert {step.least_ap for step in whole if step.results} == {gpu_check.LEAST_AP}
    assert [one for one in precisions if one[0]] == [(True, dtype) for dtype in reduced]


def test_the_tests_of_the_plan_are_there(gpu_check, tmp_path):
    """What `-k parity` and `tests/ops` select is not empty, and takes the option."""
    steps = {step.name: step for step in gpu_check.plan("cpu", tmp_path, 0, 1)}
    command = [sys.executable, *steps["golden bundles"].command, "--collect-only"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout
    assert "test_fastinst_parity.py" in answer.stdout


def results(gpu_check, folder: Path, ap: float):
    file = folder / "results.json"
    file.write_text(json.dumps({"segm": {"AP": ap}}))
    command = ["-c", "print('trained')"]
    return gpu_check.Step("train", command, results=file, least_ap=45.0)


@pytest.mark.parametrize(("ap", "passed"), [(44.9, False), (45.0, True), (float("nan"), False)])
def test_a_training_passes_by_its_ap(gpu_check, tmp_path, ap, passed):
    found = gpu_check.run(results(gpu_check, tmp_path, ap), tmp_path)
    assert found["passed"] is passed
    assert found["ap"] == pytest.approx(ap, nan_ok=True)
    assert Path(found["log"]).read_text() == "trained\n"


def test_a_failing_step_fails_the_check_and_is_in_the_summary(gpu_check, monkeypatch, tmp_path):
    steps = [
        gpu_check.Step("good", ["-c", "pass"]),
        gpu_check.Step("bad", ["-c", "raise SystemExit(3)"]),
        gpu_check.Step("set", ["-c", "import os; os.environ['PROBE']"], {"PROBE": "1"}),
    ]
    monkeypatch.setattr(gpu_check, "plan", lambda *_: steps)
    assert gpu_check.main(["--device", "cpu", "--output", str(tmp_path)]) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {name: one["passed"] for name, one in summary["steps"].items()} == {
        "good": True,
        "bad": False,
        "set": True,
    }
    assert summary["machine"]["torch"] == torch.__version__
    only = ["--only", "good", "--device", "cpu", "--output", str(tmp_path)]
    assert gpu_check.main(only) == 0
