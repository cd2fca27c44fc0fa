"""The command that tells what training a mask network costs."""

import json

import pytest

from queryseg.projects.mask_frozen_detr.cost_benchmark import main


def _printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(list(arguments)) == 0
    return json.loads(capsys.readouterr().out)


def test_memory_of_a_step_fits_the_papers_gpu_and_grows_with_the_objects(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = _printed(capsys, "memory", "--instances", "2")
    many = _printed(capsys, "memory", "--instances", "100")
    assert few["by_kind_gib"]["PARAM"] == pytest.approx(3_261_712 * 4 / 2**30, abs=1e-3)
    assert 1 < few["peak_gib"] < many["peak_gib"] < 16
    # Encoder tokens and positions, and the backbone's map, in float32.
    tokens = 100 * 167 + 50 * 84 + 25 * 42 + 13 * 21
    given = 2 * 256 * 4 * (2 * tokens + 200 * 334) / 2**30
    assert few["given_by_the_detector_gib"] == pytest.approx(given, abs=2e-3)


def test_iterations_are_timed_in_three_ways(capsys: pytest.CaptureFixture[str]) -> None:
    printed = _printed(capsys, "iterations", "--runs", "1", "--batch", "1")
    assert list(printed["seconds"]) == ["everything", "mask network", "mask network, cached"]
    assert printed["times_cheaper"]["everything"] == 1
