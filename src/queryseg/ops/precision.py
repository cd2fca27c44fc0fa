"""The numeric rules that all operators share: autocast, accumulation dtype, determinism."""

import warnings

import torch
from torch import Tensor

VALUE_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def autocast_value(value: Tensor) -> Tensor:
    """Cast a value to the autocast dtype where autocast is on; float64 is left alone.

    Only the wrapper of an operator knows which input may lose precision: `register_autocast` would
    cast them all.
    """
    device_type = value.device.type
    if value.dtype != torch.float32 or not torch.is_autocast_enabled(device_type):
        return value
    return value.to(torch.get_autocast_dtype(device_type))


def compute_dtype(value: Tensor) -> torch.dtype:
    """The dtype that values are accumulated in: float64 for float64, else float32."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def refuse_nondeterminism(name: str, device: torch.device) -> None:
    """Honour `torch.use_deterministic_algorithms` for a CUDA backward that adds atomically.

    Raises:
        RuntimeError: deterministic algorithms are demanded (a warning in warn-only mode).
    """
    if device.type != "cuda" or not torch.are_deterministic_algorithms_enabled():
        return
    message = (
        f"the backward of {name} adds atomically on CUDA, in no fixed order, but "
        "torch.use_deterministic_algorithms(True) is set; pass warn_only=True to allow it"
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(message)
    warnings.warn(message, UserWarning, stacklevel=2)
