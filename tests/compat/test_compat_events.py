"""The event storage and its writers: JSON lines, the printed line, TensorBoard."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
    has_event_storage,
)


@pytest.fixture
def storage() -> Iterator[EventStorage]:
    with EventStorage() as opened:
        yield opened


def test_the_innermost_open_storage_is_found() -> None:
    assert not has_event_storage()
    with pytest.raises(AssertionError, match="get_event_storage"):
        get_event_storage()
    with EventStorage(5) as outer, EventStorage() as inner:
        assert get_event_storage() is inner and outer.iter == 5
    assert not has_event_storage()


def test_scalars_are_kept_by_name_and_iteration(storage: EventStorage) -> None:
    storage.put_scalar("loss", torch.tensor(2.5))
    storage.step()
    storage.put_scalars(loss=1, other=np.float32(4), cur_iter=7)
    assert storage.history("loss").values() == [(2.5, 0), (1.0, 7)]
    assert storage.latest() == {"loss": (1.0, 7), "other": (4.0, 7)}
    assert storage.iteration == storage.iter == 1
    with pytest.raises(KeyError, match="absent"):
        storage.history("absent")


def test_a_scalar_is_either_smoothed_or_not(storage: EventStorage) -> None:
    storage.put_scalar("ap", 1, smoothing_hint=False)
    with pytest.raises(AssertionError, match="smoothing_hint"):
        storage.put_scalar("ap", 2)
    assert storage.smoothing_hints() == {"ap": False}


def test_name_scopes_go_before_names(storage: EventStorage) -> None:
    with storage.name_scope("rpn/"):
        storage.put_scalar("loss", 1)
    storage.put_scalar("loss", 2)
    assert sorted(storage.latest()) == ["loss", "rpn/loss"]


def test_smoothing_takes_the_median_of_the_last_iterations(storage: EventStorage) -> None:
    values = np.random.RandomState(0).rand(60)
    for iteration, value in enumerate(values):
        storage.iter = iteration
        if iteration % 3 == 0:
            storage.put_scalar("every third", value)
    # Of iterations 38 to 57, those that are multiples of 3: 39, 42, ..., 57.
    assert storage.count_samples("every third", 20) == 7
    expected = np.median(values[39:60:3])
    assert storage.latest_with_smoothing_hint(20)["every third"] == (expected, 57)


def test_json_lines_hold_what_is_new(storage: EventStorage, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("{}\n")
    writer = JSONWriter(str(path), window_size=3)
    for iteration in range(6):
        storage.iter = iteration
        storage.put_scalar("loss", iteration**2)
        if iteration in (1, 2):
            storage.put_scalar("ap", iteration, smoothing_hint=False)
        if iteration % 3 == 2:
            writer.write()
    writer.write()  # nothing is new
    writer.close()
    assert path.read_text() == (
        '{}\n{"ap": 2.0, "iteration": 2, "loss": 1.0}\n{"iteration": 5, "loss": 16.0}\n'
    )


def test_scalars_of_several_iterations_make_several_lines(
    storage: EventStorage, tmp_path: Path
) -> None:
    writer = JSONWriter(str(tmp_path / "metrics.json"))
    storage.put_scalar("early", 1, cur_iter=3)
    storage.put_scalar("late", 2, cur_iter=4)
    writer.write()
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert lines == [{"early": 1.0, "iteration": 3}, {"late": 2.0, "iteration": 4}]


def printed(printer: CommonMetricPrinter, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    logger = logging.getLogger("detectron2.utils.events")
    logger.addHandler(caplog.handler)  # the logger may not propagate
    try:
        with caplog.at_level(logging.INFO, logger=logger.name):
            printer.write()
    finally:
        logger.removeHandler(caplog.handler)
    # A machine with CUDA ends the line with its memory.
    lines = dict.fromkeys(record.getMessage() for record in caplog.records)
    return [re.sub(r"max_mem: \d+M$", "", line) for line in lines]


def test_the_printed_line_has_the_format_that_scripts_read(
    storage: EventStorage, caplog: pytest.LogCaptureFixture
) -> None:
    for iteration in range(3):
        storage.iter = iteration
        storage.put_scalars(total_loss=1.23456 * iteration, loss_mask=iteration, data_time=0.25)
        storage.put_scalar("[metric]scale", 2048.0)
        storage.put_scalar("time", [7.0, 3.0, 2.0][iteration])
        storage.put_scalar("lr", 0.000123456, smoothing_hint=False)
        storage.put_scalar("unprinted", 5)
    (line,) = printed(CommonMetricPrinter(max_iter=1000), caplog)
    assert line == (
        " eta: 0:49:51  iter: 2  total_loss: 1.235  loss_mask: 1  [metric]scale: 2048  "
        "time: 4.0000  last_time: 2.0000  data_time: 0.2500  last_data_time: 0.2500   "
        "lr: 0.00012346  "
    )
    assert storage.latest()["eta_seconds"] == (3.0 * 997, 2)


def test_the_printed_line_does_without_times_and_rates(
    storage: EventStorage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.put_scalar("loss", 2)
    assert printed(CommonMetricPrinter(), caplog) == [" iter: 0  loss: 2     lr: N/A  "]


def test_without_a_timer_the_time_between_lines_gives_the_eta(
    storage: EventStorage, caplog: pytest.LogCaptureFixture
) -> None:
    printer = CommonMetricPrinter(max_iter=10)
    assert "eta" not in printed(printer, caplog)[0]
    storage.iter = 5
    assert "eta: 0:00:00  iter: 5" in printed(printer, caplog)[0]


def test_nothing_is_printed_after_training(
    storage: EventStorage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.iter = 10
    storage.put_scalar("loss", 2)
    assert printed(CommonMetricPrinter(max_iter=10), caplog) == []


def test_tensorboard_gets_scalars_images_and_histograms_once(
    storage: EventStorage, tmp_path: Path
) -> None:
    calls: list[tuple[str, str, int]] = []

    class Recorder:
        def add_scalar(self, name: str, value: float, at: int) -> None:
            calls.append(("scalar", name, at))

        def add_image(self, name: str, image: torch.Tensor, at: int) -> None:
            calls.append(("image", name, at))

        def add_histogram_raw(self, tag: str, global_step: int, **numbers: object) -> None:
            assert numbers["num"] == 4 and numbers["sum"] == 6 and numbers["sum_squares"] == 14
            assert numbers["bucket_counts"] == [1, 1, 1, 1]
            assert np.allclose(numbers["bucket_limits"], [0.75, 1.5, 2.25, 3])
            calls.append(("histogram", tag, global_step))

    writer = TensorboardXWriter(str(tmp_path))
    writer.__dict__["_writer"] = Recorder()
    storage.iter = 3
    storage.put_scalar("loss", 1)
    storage.put_image("picture", torch.zeros(3, 4, 4))
    storage.put_histogram("weights", torch.arange(4.0), bins=4)
    writer.write()
    writer.write()
    assert calls == [("scalar", "loss", 3), ("image", "picture", 3), ("histogram", "weights", 3)]


def test_tensorboard_makes_no_file_before_it_writes(storage: EventStorage, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    idle = TensorboardXWriter(str(tmp_path / "idle"))
    idle.close()
    assert not (tmp_path / "idle").exists()
    busy = TensorboardXWriter(str(tmp_path / "busy"))
    storage.put_scalar("loss", 1)
    busy.write()
    busy.close()
    assert len(list((tmp_path / "busy").glob("events.out.tfevents.*"))) == 1
