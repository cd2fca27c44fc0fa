"""What a benchmark case is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
        runs: upper limit of the number of timed runs, for contenders that take seconds.
    """

    name: str
    run: Run
    inputs: Sequence[Tensor] = ()
    passes: tuple[str, ...] = ("forward", "forward_backward")


@dataclass
class Case:
    """One operator on inputs of one size.

    Attributes:
        op: operator.
        name: size of the inputs, as in `encoder_800x1333`.
        build: makes the contenders on a device: ours first, then the baseline that the ratio is
            taken against, then others.
        passes: `"forward"`, `"forward_backward"`.
    """

    op: str
    name: str
    build: Callable[[torch.device], list[Contender]]
    passes: tuple[str, ...] = ("forward", "forward_backward")
    tolerance: float = field(default=1e-4)

    @property
    def key(self) -> str:
        return f"{self.op}/{self.name}"
