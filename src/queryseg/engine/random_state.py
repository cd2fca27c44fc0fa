"""Saving and restoring every random number generator a training step may draw from."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

RandomState = dict[str, Any]


def get_random_state() -> RandomState:
    """State of `random`, `numpy.random`, torch on the CPU and on the current GPU.

    Only tensors and plain values, so that a checkpoint with it loads with `weights_only=True`.
    """
    name, keys, position, has_gauss, cached = cast(tuple, np.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: RandomState) -> None:
    """Put back what `get_random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Run something that may draw random numbers without the training noticing."""
    state = get_random_state()
    try:
        yield
    finally:
        set_random_state(state)
