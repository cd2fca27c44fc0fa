"""Communication between the processes of a distributed run; alone, a process is the whole world."""

import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

_LOCAL_PROCESS_GROUP: dist.ProcessGroup | None = None


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes on all machines."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """This process's number among all processes."""
    return dist.get_rank() if _is_distributed() else 0


def is_main_process() -> bool:
    """Whether this process has rank 0."""
    return get_rank() == 0


@functools.lru_cache
def create_local_process_group(num_workers_per_machine: int) -> None:
    """Group the processes of each machine; every process calls this once, after the init of torch.

    `launch` does it. Whoever starts processes otherwise has to call it before `get_local_rank`.
    """
    global _LOCAL_PROCESS_GROUP
    world_size = get_world_size()
    assert _LOCAL_PROCESS_GROUP is None, "The local process group exists already."
    assert world_size % num_workers_per_machine == 0, (world_size, num_workers_per_machine)
    for first in range(0, world_size, num_workers_per_machine):
        ranks = list(range(first, first + num_workers_per_machine))
        group = dist.new_group(ranks)
        if get_rank() in ranks:
            _LOCAL_PROCESS_GROUP = group


def get_local_process_group() -> dist.ProcessGroup:
    """The group of the processes on this machine."""
    assert _LOCAL_PROCESS_GROUP is not None, (
        "No local process group: start the processes with detectron2.engine.launch, or call "
        "comm.create_local_process_group(num_workers_per_machine) after init_process_group()."
    )
    return _LOCAL_PROCESS_GROUP


def get_local_rank() -> int:
    """This process's number among those of its machine."""
    return dist.get_rank(group=get_local_process_group()) if _is_distributed() else 0


def get_local_size() -> int:
    """Number of processes on this machine."""
    return dist.get_world_size(group=get_local_process_group()) if _is_distributed() else 1


def synchronize() -> None:
    """Wait until every process has come here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        dist.barrier(device_ids=[torch.cuda.current_device()])  # NCCL warns without the device
    else:
        dist.barrier()


@functools.lru_cache
def _get_global_gloo_group() -> dist.ProcessGroup:
    """All ranks over gloo, so that objects do not travel through GPU memory."""
    if dist.get_backend() == dist.Backend.NCCL:
        return dist.new_group(backend="gloo")
    return dist.group.WORLD


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Return the picklable `data` of every process, in the order of their ranks."""
    if get_world_size() == 1:
        return [data]
    group = group or _get_global_gloo_group()
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, data, group=group)
    return gathered


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Return the picklable `data` of every process on rank `dst`, and [] on the others."""
    if get_world_size() == 1:
        return [data]
    group = group or _get_global_gloo_group()
    is_receiver = dist.get_rank(group) == dst
    gathered: list[Any] = [None] * dist.get_world_size(group) if is_receiver else []
    dist.gather_object(data, gathered if is_receiver else None, dst=dst, group=group)
    return gathered


def shared_random_seed() -> int:
    """Return rank 0's draw from NumPy's generator; every process must call this together."""
    return all_gather(np.random.randint(2**31))[0]


def reduce_dict(
    input_dict: dict[str, torch.Tensor], average: bool = True
) -> dict[str, torch.Tensor]:
    """Sum (or average) scalar tensors by name over the processes; rank 0 gets the result."""
    world_size = get_world_size()
    if world_size == 1:
        return input_dict
    names = sorted(input_dict)  # the same order in every process
    with torch.no_grad():
        values = torch.stack([input_dict[name] for name in names])
        dist.reduce(values, dst=0)
        if is_main_process() and average:
            values /= world_size
    return dict(zip(names, values))
