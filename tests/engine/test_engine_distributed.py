"""Two processes on the CPU (gloo) against one, through `launch` and through torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_checks import all_checks, gradients

from queryseg.engine import ConfigError
from queryseg.engine.processes import run_in_processes

REPOSITORY = Path(__file__).parents[2]
CONFIG = """
from tiny_training import tiny_config

cfg = tiny_config({output!r}, max_iter=4, total_batch_size=4)
model, optimizer, lr_multiplier = cfg.model, cfg.optimizer, cfg.lr_multiplier
dataloader, train = cfg.dataloader, cfg.train
del cfg
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("two_processes")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        run_in_processes(all_checks, (output_dir,), num_processes=2)
    finally:
        if visible is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
    return output_dir


def test_two_processes_give_the_gradients_of_one_with_the_whole_batch(
    two_processes: Path, tmp_path: Path
) -> None:
    expected = gradients(tmp_path)
    assert expected.norm(dim=1).min() > 0.1
    for rank in range(2):
        found = torch.load(two_processes / f"found_{rank}.pt")["gradients"]
        difference = (found - expected).norm(dim=1) / expected.norm(dim=1)
        assert difference.max() <= 1e-5  # measured 2e-7


def test_a_bad_loss_in_one_process_stops_all_with_the_same_message(two_processes: Path) -> None:
    messages = [torch.load(two_processes / f"found_{rank}.pt")["message"] for rank in range(2)]
    assert messages[0] == messages[1]
    assert "loss_ce is nan" in messages[0]
    assert "105 (image_5.png)" in messages[0]


def test_several_processes_resume_exactly(two_processes: Path) -> None:
    assert torch.load(two_processes / "found_1.pt")["starts"] == [0, 0, 4]
    whole, stopped = (
        torch.load(two_processes / name / "model_final.pth", weights_only=True)
        for name in ("whole", "stopped")
    )
    assert whole["trainer"]["iteration"] == stopped["trainer"]["iteration"] == 5
    assert len(whole["random_states"]) == 2
    for name, value in whole["model"].items():
        assert torch.equal(value, stopped["model"][name]), name
    first, second = (state["torch"] for state in whole["random_states"])
    assert not torch.equal(first, second)  # each process has random numbers of its own


def test_torchrun_starts_train_net(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(output=str(tmp_path / "out")))
    result = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *(str(REPOSITORY / "train_net.py"), "--config-file", str(config)),
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "process 1 of 2" in result.stdout
    state = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert len(state["random_states"]) == 2
    assert (tmp_path / "out" / "results.json").is_file()


def test_several_machines_need_a_place_to_meet() -> None:
    with pytest.raises(ConfigError, match="need --dist-url tcp://HOST:PORT"):
        run_in_processes(print, (), num_processes=1, num_machines=2)
