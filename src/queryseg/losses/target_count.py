"""The number of ground-truth instances that losses are divided by."""

import torch
import torch.distributed as dist


def mean_target_count(count: int, device: torch.device) -> float:
    """Instances per process, averaged over all processes and at least one.

    Args:
        count: instances in this process' batch.
        device: where collective communication of this process runs.

    >>> mean_target_count(0, torch.device("cpu"))
    1.0
    """
    if not (dist.is_available() and dist.is_initialized()):
        return max(float(count), 1.0)
    total = torch.tensor(float(count), device=device)
    dist.all_reduce(total)
    return max(total.item() / dist.get_world_size(), 1.0)
