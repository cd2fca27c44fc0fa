"""Numbers that the host knows, as tensors on a device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def numbers_on(
    device: torch.device, values: Sequence[float], dtype: torch.dtype = torch.long
) -> Tensor:
    """Values (n,) on a device. `torch.tensor(values, device=...)` would wait for the device.

    >>> numbers_on(torch.device("cpu"), [28, 56]).tolist()
    [28, 56]
    """
    numbers = torch.tensor(list(values), dtype=dtype, device="cpu")
    return numbers.to(device, non_blocking=True)
