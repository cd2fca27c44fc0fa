"""Progress line, progress bar, results table."""

import fcntl
import io
import json
import logging
import math
import os
import struct
import sys
import termios
from pathlib import Path

import pytest
from detectron2.utils.events import EventStorage
from tiny_training import tiny_config

from queryseg.engine import LazyTrainer
from queryseg.engine.evaluation import flatten_results, results_table, write_results
from queryseg.engine.progress import ProgressHook, describe_losses, progress_line


@pytest.fixture
def storage() -> EventStorage:
    storage = EventStorage(0)
    for step, total in enumerate((8.0, 2.0, 3.0)):
        storage.iter = step
        storage.put_scalars(
            total_loss=total, loss_mask=total / 2, loss_mask_0=9.0, time=0.5, data_time=0.1
        )
    storage.put_scalar("lr", 2e-4, smoothing_hint=False)
    return storage


def test_the_line_holds_iteration_losses_rate_times_and_time_left(storage: EventStorage) -> None:
    line = progress_line(storage, done=100, total=7300)
    for part in (
        "iter 100/7300",
        "loss 3 (mask 1.5)",
        "lr 0.0002",
        "0.500 s/it (data 0.100)",
        "ETA 1:00:00",
    ):
        assert part in line, part
    assert "\n" not in line
    assert "mask_0" not in line


def test_a_single_loss_has_no_terms() -> None:
    storage = EventStorage(0)
    storage.put_scalar("total_loss", 1.25)
    assert describe_losses(storage) == "loss 1.25"


def test_lines_come_at_the_period_and_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "queryseg")
    LazyTrainer(tiny_config(tmp_path, max_iter=7, log_period=3)).train()
    lines = [line for line in caplog.messages if line.startswith("iter ")]
    assert [line.split()[1] for line in lines] == ["3/7", "6/7", "7/7"]


def test_the_bar_counts_from_where_a_run_goes_on_and_leaves_logging_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    trainer = LazyTrainer(tiny_config(tmp_path, max_iter=5))
    trainer._hooks = [hook for hook in trainer._hooks if not isinstance(hook, ProgressHook)]
    trainer.register_hooks([ProgressHook(2, show_bar=True)])
    trainer.start_iter = 2
    handlers = list(logging.getLogger("queryseg").handlers)
    trainer.train()
    text = screen.getvalue()
    assert "2/5" in text
    assert "5/5" in text
    assert "loss " in text
    assert "1/5" not in text
    assert logging.getLogger("queryseg").handlers == handlers


def test_a_terminal_gets_a_bar_and_a_file_or_a_terminal_without_size_gets_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "file").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        assert not ProgressHook(1).show_bar
    controller, terminal = os.openpty()
    with open(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert not ProgressHook(1).show_bar
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
        assert ProgressHook(1).show_bar
    os.close(controller)


def test_the_table_has_a_row_per_task_and_leaves_single_classes_out() -> None:
    results = {"bbox": {"AP": 12.345, "AP-cat": 3.0}, "segm": {"AP": math.nan, "AP50": 7.0}}
    table = results_table(results)
    assert "12.35" in table or "12.34" in table
    assert "AP-cat" not in table
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["bbox", "segm"]


def test_results_are_flattened_by_task_and_written_as_valid_json(tmp_path: Path) -> None:
    results = {"segm": {"AP": 1, "APs": math.nan}, "speed": 2.5}
    assert flatten_results({"segm": {"AP": 1}, "speed": 2.5}) == {"segm/AP": 1.0, "speed": 2.5}
    write_results(results, tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == {"segm": {"AP": 1.0, "APs": None}, "speed": 2.5}
