"""Going on when the GPU's memory is full."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["retry_if_cuda_oom"]


def retry_if_cuda_oom(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return `func`, called again when CUDA is out of memory.

    The second attempt comes after the cache was emptied, the third one with the arguments that are
    CUDA tensors (or have `.device` and `.to` like them) on the CPU, so its result may be there too.
    `func` must not have a state.
    """

    @functools.wraps(func)
    def with_retries(*args: Any, **kwargs: Any) -> Any:
        for _ in range(2):
            try:
                return func(*args, **kwargs)
            except RuntimeError as error:
                if "CUDA out of memory. " not in str(error):
                    raise
            torch.cuda.empty_cache()
        logging.getLogger(__name__).info("CUDA is out of memory: running %s on the CPU.", func)
        return func(
            *(_to_cpu(value) for value in args),
            **{name: _to_cpu(value) for name, value in kwargs.items()},
        )

    return with_retries


def _to_cpu(value: Any) -> Any:
    is_on_gpu = getattr(getattr(value, "device", None), "type", None) == "cuda"
    return value.to(device="cpu") if is_on_gpu else value
