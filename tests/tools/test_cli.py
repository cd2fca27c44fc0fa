"""The console command finds every tool."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import queryseg
from queryseg import cli


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from queryseg.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_tool_is_a_command():
    expected = {"demo", "train", "convert", "check-dataset", "collect-env", "parity", "benchmark"}
    assert expected | {"shapes"} <= set(cli.commands())
    assert "console" not in cli.commands()


def test_the_overview_lists_the_commands_with_what_they_do(capsys):
    assert cli.main([]) == 0
    overview = capsys.readouterr().out
    for name in cli.commands():
        (line,) = [line for line in overview.splitlines() if line.split()[:1] == [name]]
        assert len(line.split()) > 2
    assert "draw predictions on images" in overview


@pytest.mark.parametrize("arguments", [["-h"], ["--help"]])
def test_help_is_not_an_error(arguments: list[str], capsys):
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith("usage: queryseg <command>")


def test_an_unknown_command_shows_the_overview_and_fails(capsys):
    assert cli.main(["dmeo"]) == 2
    assert "demo" in capsys.readouterr().out


def test_the_version_is_the_package_s(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == queryseg.__version__


def test_a_command_gets_its_arguments_and_ends_with_its_code(tmp_path: Path):
    size = ("--train", "1", "--val", "1", "--size", "32")
    good = run(tmp_path, "shapes", "--output", "s", *size)
    assert good.returncode == 0, good.stderr
    assert (tmp_path / "s" / "annotations" / "train.json").is_file()
    files = ("--config-file", "none.py", "--weights", "w.pth", "--input", "a.png")
    bad = run(tmp_path, "demo", *files)
    assert bad.returncode == 1
    assert bad.stderr.splitlines()[-1].startswith("error: config file 'none.py' does not exist")
    assert "Traceback" not in bad.stderr
