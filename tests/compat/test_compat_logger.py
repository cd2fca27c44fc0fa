"""Loggers, seeds, memory, pickling, and what tests share."""

import logging
import os
import pickle
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils import logger as d2_logger
from detectron2.utils.analysis import find_unused_parameters, parameter_count
from detectron2.utils.env import TORCH_VERSION, seed_all_rng
from detectron2.utils.logger import (
    create_small_table,
    log_every_n_seconds,
    log_first_n,
    setup_logger,
)
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.serialize import PicklableWrapper
from detectron2.utils.testing import random_boxes, reload_lazy_config
from omegaconf import DictConfig
from torch import nn


@pytest.fixture
def name() -> Iterator[str]:
    """A logger's name that no other test uses, left without handlers."""
    name = "queryseg_test_logger"
    setup_logger.cache_clear()
    yield name
    logging.getLogger(name).handlers.clear()
    setup_logger.cache_clear()


def test_the_terminal_gets_short_names_and_the_file_plain_lines(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = setup_logger(str(tmp_path), name=name, abbrev_name="qs")
    assert setup_logger(str(tmp_path), name=name, abbrev_name="qs") is logger
    logging.getLogger(f"{name}.part").info("hello")
    logger.warning("careful")
    plain = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out).splitlines()
    assert re.fullmatch(r"\[\d\d/\d\d \d\d:\d\d:\d\d qs\.part\]: hello", plain[0])
    assert re.fullmatch(rf"WARNING \[.{{14}} {name}\]: careful", plain[1])
    lines = (tmp_path / "log.txt").read_text().splitlines()
    # Formatters share the record, so the file may show the shortened name.
    assert re.fullmatch(rf"\[\d\d/\d\d \d\d:\d\d:\d\d\] (qs|{name})\.part INFO: hello", lines[0])
    assert lines[1].endswith("WARNING: careful") and len(lines) == 2


def test_other_ranks_write_to_their_own_file_only(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logger(str(tmp_path / "new/run.txt"), distributed_rank=2, name=name).info("hello")
    assert capsys.readouterr().out == ""
    assert "hello" in (tmp_path / "new/run.txt.rank2").read_text()


def test_repeated_messages_are_held_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        for index in range(7):
            log_first_n(logging.INFO, f"first {index}", n=2, name="a")
            log_every_n_seconds(logging.INFO, f"seconds {index}", n=1000, name="c")
            log_first_n(logging.INFO, f"message {index % 2}", name="d", key="message")
    expected = ["first 0", "first 1", "seconds 0"]
    expected += ["message 0", "message 1"]
    assert sorted(record.getMessage() for record in caplog.records) == sorted(expected)


def test_the_callers_module_names_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        d2_logger.log_first_n(logging.INFO, "who am I")
    assert caplog.records[0].name == __name__


def test_a_small_table_has_one_row() -> None:
    lines = create_small_table({"AP": 12.3456, "AP50": 1.0}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["AP", "AP50"] and cells[2] == ["12.346", "1.000"]


def test_a_seed_reaches_all_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    seed_all_rng(11)
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())
    torch_draw = torch.rand(1, generator=torch.Generator().manual_seed(11)).item()
    assert drawn == (random.Random(11).random(), np.random.RandomState(11).rand(), torch_draw)
    assert os.environ["PYTHONHASHSEED"] == "11"


def test_torchs_version_is_two_numbers() -> None:
    assert torch.__version__.startswith("{}.{}.".format(*TORCH_VERSION))


def test_a_function_is_called_again_when_cuda_memory_is_full() -> None:
    calls: list[torch.Tensor] = []

    @retry_if_cuda_oom
    def twice_full(x: torch.Tensor, y: int = 1) -> torch.Tensor:
        calls.append(x)
        if len(calls) < 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return x + y

    assert twice_full(torch.ones(1), y=2).item() == 3 and len(calls) == 3

    @retry_if_cuda_oom
    def wrong() -> None:
        calls.append(torch.zeros(0))
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        wrong()
    assert len(calls) == 4


def test_a_wrapped_closure_can_be_pickled() -> None:
    offset = 5
    wrapped = PicklableWrapper(PicklableWrapper(lambda x: x + offset))
    assert wrapped(1) == 6
    assert pickle.loads(pickle.dumps(wrapped))(2) == 7
    assert PicklableWrapper([1, 2]).index(2) == 1


def test_parameters_without_gradient_are_found() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.used(x).sum()}

    model = Two()
    assert find_unused_parameters(model, torch.ones(1, 2)) == ["unused.weight", "unused.bias"]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert parameter_count(model)["used"] == 6


def test_random_boxes_are_drawn_from_torchs_generator() -> None:
    torch.manual_seed(4)
    boxes = random_boxes(50, max_coord=20)
    drawn = (torch.rand(50, 4, generator=torch.Generator().manual_seed(4)) * 10).clamp(min=1)
    assert torch.equal(boxes[:, :2], drawn[:, :2])
    assert torch.equal(boxes[:, 2:] - boxes[:, :2] > 0.99, torch.ones(50, 2, dtype=torch.bool))
    assert boxes.max() <= 20


def test_a_config_is_the_same_after_reloading() -> None:
    cfg = DictConfig({"a": {"b": [1, "x", None]}})
    assert reload_lazy_config(cfg) == cfg
