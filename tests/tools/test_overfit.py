"""`benchmarks/overfit.py`: what it trains on and how it judges a run."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def overfit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("overfit", BENCHMARKS / "overfit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_subset_has_the_first_images_with_all_their_objects(
    overfit: ModuleType, tmp_path: Path
) -> None:
    content = {
        "images": [{"id": 7}, {"id": 3}, {"id": 5}],
        "annotations": [{"id": n, "image_id": image} for n, image in enumerate((5, 3, 7, 3))],
        "categories": [{"id": 1, "name": "fig"}],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    overfit.write_subset(tmp_path / "all.json", tmp_path / "some.json", 2)
    found = json.loads((tmp_path / "some.json").read_text())
    assert [image["id"] for image in found["images"]] == [7, 3]
    assert [annotation["id"] for annotation in found["annotations"]] == [1, 2, 3]
    assert found["categories"] == content["categories"]


def test_a_run_is_judged_by_its_first_and_its_last_losses(
    overfit: ModuleType, tmp_path: Path
) -> None:
    losses = [80.0, *[40.0] * 20, *[8.0] * overfit.LAST_STEPS]
    lines = [json.dumps({"total_loss": loss, "time": 0.5}) for loss in losses]
    (tmp_path / "metrics.json").write_text("\n".join([*lines, '{"segm/AP": 70.0}']))
    (tmp_path / "results.json").write_text('{"segm": {"AP": 71.26}, "bbox": {"AP": 65.0}}')
    assert overfit.summarise(tmp_path) == {
        "first_loss": 80.0,
        "last_loss": 8.0,
        "fallen_percent": 90.0,
        "segm_AP": 71.3,
        "bbox_AP": 65.0,
        "seconds": 15.5,
    }


def test_a_training_that_is_there_is_not_repeated(
    overfit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    (tmp_path / "results.json").write_text("{}")
    arguments = ["--json", "a.json", "--images", "images"]
    args = overfit.parse_arguments(arguments)
    overfit.train("fastinst", tmp_path, tmp_path / "subset.json", args)
    with pytest.raises(FileNotFoundError):
        overfit.train("fastinst", tmp_path / "new", tmp_path / "subset.json", args)
