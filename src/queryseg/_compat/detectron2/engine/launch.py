"""One process per GPU, on one machine or several."""

import logging
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2.utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Call `main_func(*args)` in every process of a distributed run, or here if it is only one.

    Args:
        main_func: importable from a spawned process.
        num_gpus_per_machine: processes on each machine; without GPUs they talk over gloo. 0 is one
            process, this one.
        num_machines: machines; this function is called on each of them.
        machine_rank: number of this machine.
        dist_url: where the processes meet ("tcp://host:port"); "auto" takes a free local port.
        args: arguments of `main_func`.
        timeout: how long a process waits for the others.
    """
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        main_func(*args)
        return
    if dist_url == "auto":
        assert num_machines == 1, "dist_url='auto' works on one machine only: give tcp://host:port."
        dist_url = f"tcp://127.0.0.1:{_find_free_port()}"
    assert dist_url is not None, "Several processes need a dist_url to meet at."
    if num_machines > 1 and dist_url.startswith("file://"):
        logging.getLogger(__name__).warning(
            "file:// is not reliable between machines: prefer tcp://host:port."
        )
    worker = (main_func, world_size, num_gpus_per_machine, machine_rank, dist_url, args, timeout)
    mp.start_processes(_distributed_worker, worker, nprocs=num_gpus_per_machine, daemon=False)


def _find_free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _distributed_worker(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    num_gpus_per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple[Any, ...],
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    gpus = torch.cuda.device_count()
    if 0 < gpus < num_gpus_per_machine:
        raise ValueError(f"{num_gpus_per_machine} GPUs asked for, {gpus} are visible.")
    rank = local_rank + num_gpus_per_machine * machine_rank
    place = {"init_method": dist_url, "rank": rank, "world_size": world_size}
    try:
        dist.init_process_group("nccl" if gpus else "gloo", timeout=timeout, **place)
    except Exception:
        logging.getLogger(__name__).error("Process %d found no others at %s.", rank, dist_url)
        raise
    if gpus:
        torch.cuda.set_device(local_rank)
    comm.create_local_process_group(num_gpus_per_machine)
    comm.synchronize()  # or a slow start of one process looks like a timeout later
    main_func(*args)
