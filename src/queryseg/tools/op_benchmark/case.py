"""What a benchmark case is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Run = Callable[[], Tensor]


@dataclass
class Contender:
    """One way to compute the result of a case.

    Attributes:
        name: as the table shows it.
        run: the forward pass.
        inputs: what the forward_backward pass differentiates by.
        passes: what it can do.
    """

    name: str
    run: Run
    inputs: Sequence[Tensor] = ()
    passes: tuple[str, ...] = ("forward", "forward_backward")


@dataclass(frozen=True)
class Cost:
    """What one pass needs at least.

    Attributes:
        flops: floating-point operations.
        bytes: every input read once and every result written once.
        gathered_bytes: what the samples' corners read from the caches; 0 for an op without samples.
    """

    flops: float
    bytes: float
    gathered_bytes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.gathered_bytes + other.gathered_bytes,
        )


def no_costs() -> Mapping[str, Cost]:
    """Of a case whose bounds are not counted."""
    return {}


@dataclass
class Case:
    """One operator on inputs of one size.

    Attributes:
        op: operator.
        name: size of the inputs, as in `encoder_800x1333`.
        build: makes the contenders on a device: ours first, then the baseline that the ratio is
            taken against, then others.
        passes: `"forward"`, `"forward_backward"`.
        costs: gives what each pass needs at least.
    """

    op: str
    name: str
    build: Callable[[torch.device], list[Contender]]
    passes: tuple[str, ...] = ("forward", "forward_backward")
    costs: Callable[[], Mapping[str, Cost]] = no_costs

    @property
    def key(self) -> str:
        return f"{self.op}/{self.name}"
