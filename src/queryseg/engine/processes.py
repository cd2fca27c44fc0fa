"""Starting the processes of a run: `launch` of Detectron2, or those that torchrun has started."""

import os
from collections.abc import Callable
from typing import Any

import torch
from detectron2.engine import launch
from detectron2.utils import comm
from torch import distributed

from queryseg.engine.config import ConfigError

TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")


def run_in_processes(
    main: Callable[..., None],
    args: tuple[Any, ...],
    *,
    num_processes: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
) -> None:
    """Call `main(*args)` in every process of the run.

    Under torchrun the processes exist already, and the numbers given here do not count. Without a
    GPU the processes talk over gloo.

    Args:
        main: a function at the top level of a module.
        args: its arguments.
        num_processes: processes on this machine, one per GPU.
        num_machines: machines in the run.
        machine_rank: number of this one.
        dist_url: where the processes meet, `tcp://HOST:PORT`; `"auto"` on a single machine.

    Raises:
        ConfigError: several machines without a place to meet.
    """
    if all(name in os.environ for name in TORCHRUN_VARIABLES):
        _join_torchrun()
        main(*args)
    else:
        if num_machines > 1 and dist_url == "auto":
            raise ConfigError(
                "several machines need --dist-url tcp://HOST:PORT, the same on all of them, with "
                "the address of the machine of rank 0"
            )
        launch(main, num_processes, num_machines, machine_rank, dist_url, args=args)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _join_torchrun() -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    comm.synchronize()
