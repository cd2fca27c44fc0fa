"""Weights that follow from their official names, so that golden data needs no weight files."""

import math
import zlib
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from queryseg.checkpoint import Layout

Adjust = Callable[[MutableMapping[str, Tensor]], None]
"""Changes a state dict under official names in place: what a bundle sets apart from the fill."""


def named_generator(name: str) -> np.random.RandomState:
    """The random generator that belongs to a name."""
    return np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)


def filled(name: str, shape: tuple[int, ...]) -> Tensor:
    """Values of a floating-point state-dict entry.

    Args:
        name: official name of the entry; it seeds the generator, and its ending tells running
            statistics and scales.
        shape: shape of the entry.

    Returns:
        A float32 tensor.

    >>> filled("norm.weight", (2,))
    tensor([1.1270, 1.0232])
    """
    generator = named_generator(name)
    if name.endswith("running_var"):
        values = 0.5 + generator.rand(*shape)
    elif name.endswith("running_mean"):
        values = 0.1 * generator.randn(*shape)
    elif len(shape) <= 1:
        base = 1.0 if name.endswith("weight") else 0.0
        values = base + 0.1 * generator.randn(*shape)
    else:
        values = generator.randn(*shape) / math.sqrt(max(math.prod(shape[1:]), 1))
    return torch.as_tensor(np.asarray(values, dtype=np.float32))


@dataclass(frozen=True)
class KeyReport:
    """How the names of a model and of its official counterpart fit together.

    Args:
        matched: our names that took a value.
        missing: our names without an official one.
        unexpected: official names without one of ours.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "matched": len(self.matched),
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
        }


def fill_by_official_names(
    model: nn.Module, layout: Layout, adjust: Adjust | None = None
) -> KeyReport:
    """Give a model the weights that its official names stand for.

    Our names are turned into official ones, filled, and converted back as a checkpoint would be.
    Integer entries keep their values.

    Args:
        model: changed in place.
        layout: naming rules of the official release.
        adjust: changes the official state dict before it is converted.
    """
    ours = model.state_dict()
    official: dict[str, Tensor] = {}
    for our_name, value in ours.items():
        name = layout.to_official(our_name)
        if name is not None:
            keeps = not value.is_floating_point()
            official[name] = value if keeps else filled(name, tuple(value.shape))
    if adjust is not None:
        adjust(official)
    converted = layout.convert(official)
    unexpected = tuple(name for name in converted if name not in ours)
    taken = {name: value for name, value in converted.items() if name in ours}
    model.load_state_dict(taken, strict=False)
    missing = tuple(name for name in ours if name not in taken)
    return KeyReport(tuple(taken), missing, unexpected)
