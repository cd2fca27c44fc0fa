"""Which Detectron2 wins, asked in fresh processes with toy installs."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

WHICH = "from queryseg.detectron2_seam import use_detectron2; print(use_detectron2())"


def _run(code: str, *paths: Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _toy_detectron2(root: Path, compiled_part: str) -> Path:
    package = root / "detectron2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '9.9'\n")
    (package / "_C.py").write_text(compiled_part)
    return root


def test_an_installed_detectron2_wins_over_the_subset(tmp_path: Path) -> None:
    root = _toy_detectron2(tmp_path, "")
    result = _run(f"import queryseg, detectron2; print(detectron2.__version__); {WHICH}", root)
    assert result.stdout.split() == ["9.9", "real"], result.stderr


def test_a_broken_detectron2_is_reported_and_never_replaced(tmp_path: Path) -> None:
    root = _toy_detectron2(tmp_path, "raise ImportError('undefined symbol: _ZN3c10')")
    result = _run("import queryseg", root)
    assert result.returncode != 0
    message = result.stderr.strip().splitlines()[-1]
    assert "undefined symbol" in message
    assert str(root) in message
    assert "Rebuild it for this torch" in message


def test_a_clone_in_the_working_directory_is_not_taken_for_an_install(
    tmp_path: Path, detectron2_kind: str
) -> None:
    (tmp_path / "detectron2" / "configs").mkdir(parents=True)
    result = _run(WHICH, cwd=tmp_path)
    assert result.stdout.split() == [detectron2_kind], result.stderr


def test_the_subset_says_what_it_is_and_is_found_once(detectron2_kind: str) -> None:
    if detectron2_kind == "real":
        pytest.skip("the real Detectron2 is in use")
    result = _run(
        f"import queryseg, sys, detectron2; {WHICH}; print(detectron2.__version__); "
        "print(sum(path.endswith('_compat') for path in sys.path))"
    )
    assert result.stdout.split() == ["subset", "0.6+subset", "1"], result.stderr


def test_importing_everything_on_the_subset_is_quiet(detectron2_kind: str) -> None:
    if detectron2_kind == "real":
        pytest.skip("the real Detectron2 is in use")
    result = _run(
        "import queryseg, detectron2.engine, detectron2.modeling, detectron2.evaluation\n"
        "import queryseg.engine, queryseg.predictor, queryseg.projects.fastinst.model"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_importing_the_package_alone_is_light(detectron2_kind: str) -> None:
    if detectron2_kind == "real":
        pytest.skip("the real Detectron2 is in use: its compiled part, and so torch, is tried")
    result = _run("import sys, queryseg; print('torch' in sys.modules, 'cv2' in sys.modules)")
    assert result.stdout.split() == ["False", "False"], result.stderr
