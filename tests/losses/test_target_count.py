"""The normaliser of the mask losses over several processes."""

import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from queryseg.losses import mean_target_count


def test_alone_it_is_the_count_but_at_least_one() -> None:
    assert mean_target_count(7, torch.device("cpu")) == 7.0
    assert mean_target_count(0, torch.device("cpu")) == 1.0


def _count_in_process(rank: int, port: int, results: mp.Queue) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=2)
    counts = [mean_target_count(n, torch.device("cpu")) for n in ((3, 8)[rank], (0, 1)[rank])]
    results.put(counts)
    dist.destroy_process_group()


def test_processes_agree_on_their_mean_count() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_count_in_process, args=(rank, port, results)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    counts = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert counts == [[5.5, 1.0], [5.5, 1.0]]
