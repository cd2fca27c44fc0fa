"""Torch's version and the seeds of the random generators."""

import logging
import os
import random
from collections.abc import Mapping, Sequence

import numpy as np
import torch

__all__ = ["TORCH_VERSION", "fixup_module_metadata", "seed_all_rng"]

TORCH_VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])


def seed_all_rng(seed: int | None = None) -> None:
    """Seed Python, NumPy and torch (CUDA too); None draws a seed from the system and logs it."""
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "big") % 2**31
        logging.getLogger(__name__).info("Using a generated random seed %d", seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)


def fixup_module_metadata(
    module_name: str, namespace: Mapping[str, object], keys: Sequence[str] | None = None
) -> None:
    """Do nothing: the real function serves documentation builds, and add-ons call it."""
