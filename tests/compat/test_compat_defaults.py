"""Command line, set-up of a job, writers, and several processes."""

import argparse
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import detectron2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig
from detectron2.engine import (
    SimpleTrainer,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
    launch,
)
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import nn


def test_the_arguments_are_those_that_scripts_share() -> None:
    arguments = default_argument_parser().parse_args(
        ["--config-file", "a.py", "--num-gpus", "2", "--resume", "train.seed=3", "x=[1, 2]"]
    )
    assert arguments.config_file == "a.py" and arguments.num_gpus == 2
    assert arguments.resume is True and arguments.eval_only is False
    assert (arguments.num_machines, arguments.machine_rank) == (1, 0)
    assert arguments.opts == ["train.seed=3", "x=[1, 2]"]
    port = int(arguments.dist_url.removeprefix("tcp://127.0.0.1:"))
    assert 2**15 + 2**14 <= port < 2**16
    assert default_argument_parser().parse_args([]).dist_url == arguments.dist_url


@pytest.fixture
def quiet_loggers() -> Iterator[None]:
    """Take away the handlers that `default_setup` adds to the process."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.mark.usefixtures("quiet_loggers")
def test_set_up_leaves_a_log_and_a_config_and_seeds_everything(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("train = dict(seed=7)  # a remark\n")
    output = tmp_path / "run"
    cfg = DictConfig({"train": {"seed": 7, "output_dir": str(output), "cudnn_benchmark": False}})
    default_setup(cfg, argparse.Namespace(config_file=str(source), eval_only=False))
    drawn = (np.random.rand(), torch.rand(1).item())
    assert drawn == (np.random.RandomState(7).rand(), seeded_torch_draw(7))
    assert LazyConfig.load(str(output / "config.yaml")) == cfg
    log = (output / "log.txt").read_text()
    for part in ("Rank of current process: 0", "Environment info", "PyTorch", "remark"):
        assert part in log, part


def seeded_torch_draw(seed: int) -> float:
    return torch.rand(1, generator=torch.Generator().manual_seed(seed)).item()


@pytest.mark.usefixtures("quiet_loggers")
def test_a_negative_seed_is_replaced_by_a_random_one() -> None:
    draws = []
    for _ in range(2):
        default_setup(DictConfig({"train": {"seed": -1}}), argparse.Namespace())
        draws.append(torch.rand(1).item())
    assert draws[0] != draws[1]


def test_the_environment_is_described() -> None:
    text = collect_env_info()
    assert torch.__version__ in text and np.__version__ in text and "detectron2" in text


def test_writers_write_to_the_output_folder(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    writers = default_writers(str(tmp_path / "new"), max_iter=10)
    assert [type(writer).__name__ for writer in writers] == [
        "CommonMetricPrinter",
        "JSONWriter",
        "TensorboardXWriter",
    ]
    with EventStorage() as storage:
        storage.put_scalar("loss", 3)
        for writer in writers:
            writer.write()
            writer.close()
    assert json.loads((tmp_path / "new/metrics.json").read_text()) == {"iteration": 0, "loss": 3.0}


def test_one_process_is_the_whole_world() -> None:
    assert (comm.get_world_size(), comm.get_rank(), comm.is_main_process()) == (1, 0, True)
    assert (comm.get_local_rank(), comm.get_local_size()) == (0, 1)
    assert comm.all_gather("a") == comm.gather("a") == ["a"]
    losses = {"loss": torch.tensor(2.0)}
    assert comm.reduce_dict(losses) is losses
    comm.synchronize()
    np.random.seed(3)
    expected = np.random.RandomState(3).randint(2**31)
    assert comm.shared_random_seed() == expected
    model = nn.Linear(2, 2)
    assert create_ddp_model(model) is model


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_process_is_not_spawned(gpus: int) -> None:
    seen: list[tuple[int, str]] = []
    launch(lambda a, b: seen.append((a, b)), num_gpus_per_machine=gpus, args=(3, "x"))
    assert seen == [(3, "x")]


def talk(folder: str) -> None:
    """What each of two processes does; it leaves what it found in a file."""
    rank = comm.get_rank()
    found = {
        "size": comm.get_world_size(),
        "local": [comm.get_local_rank(), comm.get_local_size()],
        "gathered": comm.gather({"rank": rank}),
        "gathered on 1": comm.gather(rank, dst=1),
        "all": comm.all_gather(str(rank)),
        "seed": comm.shared_random_seed(),
    }
    reduced = comm.reduce_dict(
        {"b": torch.tensor(1.0 + rank), "a": torch.tensor(10.0 * rank)}, average=True
    )
    found["reduced"] = {name: value.item() for name, value in sorted(reduced.items())}
    with EventStorage() as storage:
        losses = {"loss": torch.tensor(1.0 + 2 * rank)}
        SimpleTrainer.write_metrics(losses, data_time=0.5 + rank, cur_iter=0)
        found["metrics"] = {name: value for name, (value, _) in storage.latest().items()}
    model = create_ddp_model(nn.Linear(1, 1, bias=False), device_ids=None)
    model(torch.tensor([[float(rank)]])).sum().backward()
    found["gradient"] = model.module.weight.grad.item()
    if detectron2.__version__.endswith("+subset"):
        found["loaded"] = load_what_only_rank_0_sees(model, Path(folder, f"machine{rank}"))
    comm.synchronize()
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def load_what_only_rank_0_sees(model: nn.Module, folder: Path) -> float:
    if comm.is_main_process():
        folder.mkdir()
        torch.save({"model": {"weight": torch.full((1, 1), 7.0)}}, folder / "model.pth")
    DetectionCheckpointer(model).load(str(folder / "model.pth"))
    return model.module.weight.item()


def test_two_processes_talk_to_each_other(tmp_path: Path) -> None:
    if torch.cuda.is_available() and torch.cuda.device_count() < 2:
        pytest.skip("with CUDA, two processes need two GPUs")
    launch(talk, 2, dist_url="auto", args=(str(tmp_path),), timeout=timedelta(minutes=5))
    zero, one = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for rank, found in enumerate((zero, one)):
        assert found["size"] == 2 and found["local"] == [rank, 2]
        assert found["all"] == ["0", "1"]
        assert found["gradient"] == 0.5
        assert found.get("loaded", 7.0) == 7.0  # the real package needs the file everywhere
    assert (zero["gathered"], one["gathered"]) == ([{"rank": 0}, {"rank": 1}], [])
    assert (zero["gathered on 1"], one["gathered on 1"]) == ([], [0, 1])
    assert zero["seed"] == one["seed"]
    assert zero["reduced"] == {"a": 5.0, "b": 1.5}
    # Losses are averaged over the processes; the slowest one's waiting for data counts.
    assert zero["metrics"] == {"rank_data_time": 0.5, "data_time": 1.5, "total_loss": 2.0}
    assert one["metrics"] == {"rank_data_time": 1.5}
