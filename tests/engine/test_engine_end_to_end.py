"""The real thing, small: FastInst on synthetic shapes through the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from known_sets import datasets_in

from queryseg.data.shapes.__main__ import main as write_shapes
from queryseg.engine import train_main

SETTINGS = [
    "train.max_iter=4",
    "train.checkpointer.period=2",
    "train.ema.enabled=True",
    "train.total_batch_size=2",
    "dataloader.train.num_workers=1",
    "dataloader.test.num_workers=0",
]


@pytest.fixture
def shapes(tmp_path: Path) -> Iterator[Path]:
    flags = ["--train", "6", "--val", "2", "--size", "64", "--radius", "8", "16"]
    write_shapes(["--output", str(tmp_path / "datasets" / "shapes"), *flags])
    with datasets_in(tmp_path / "datasets"):
        yield tmp_path


def test_fastinst_trains_resumes_exactly_and_evaluates(shapes: Path) -> None:
    def train(name: str, *more: str) -> None:
        output_dir = f"train.output_dir={shapes / name}"
        train_main(["--config-file", "fastinst/fastinst_tiny.py", *SETTINGS, output_dir, *more])

    train("whole")
    train("broken")
    (shapes / "broken" / "last_checkpoint").write_text("model_0000001.pth")
    train("broken", "--resume")
    assert "going on with iteration 2" in (shapes / "broken" / "log.txt").read_text()
    whole, broken = (
        torch.load(shapes / name / "model_final.pth", weights_only=True)
        for name in ("whole", "broken")
    )
    for part in (
        lambda file: file["model"],
        lambda file: file["trainer"]["hooks"]["EMAHook"]["weights"],
    ):
        difference = [(part(whole)[key] - part(broken)[key]).abs().max() for key in part(whole)]
        assert max(difference) == 0.0

    results = json.loads((shapes / "whole" / "results.json").read_text())
    assert {"bbox", "segm"} <= set(results)
    assert 0 <= results["segm"]["AP"] <= 100
    train("evaluated", "--eval-only", f"train.init_checkpoint={shapes}/whole/model_final.pth")
    assert json.loads((shapes / "evaluated" / "results.json").read_text()) == results
