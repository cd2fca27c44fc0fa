"""Exponential moving average of the weights, used for evaluation and in saved checkpoints."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn

WARM_UP = 10


class EMAHook(HookBase):
    """Averages the state of the model after every step.

    The decay grows from 0.1 as `min(decay, (1 + t) / (10 + t))` over the updates `t`, so that a
    short training is not dominated by its first weights. Floating-point buffers are averaged as
    well; integer ones are copied.

    Args:
        model: the model being trained, not its DDP wrapper.
        decay: weight of the past in each update.

    Raises:
        ValueError: a decay outside [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"train.ema.decay is {decay}: it must lie in [0, 1)")
        self.model = model
        self.decay = decay
        self.num_updates = 0
        self._swapped = False
        self._other = {name: value.detach().clone() for name, value in self._state().items()}

    def after_step(self) -> None:
        """Move the average towards the current weights."""
        decay = min(self.decay, (1 + self.num_updates) / (WARM_UP + self.num_updates))
        averages, current = [], []
        for name, value in self._state().items():
            if value.is_floating_point():
                averages.append(self._other[name])
                current.append(value)
            else:
                self._other[name].copy_(value)
        with torch.no_grad():
            torch._foreach_lerp_(averages, current, 1 - decay)
        self.num_updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model holds the average; afterwards its training weights again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """The weights that the model does not hold right now, and which they are.

        Checkpoints are written while the average is applied: their model part is the average, ready
        for use anywhere, and the training weights are here.
        """
        return {
            "weights": self._other,
            "swapped": self._swapped,
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore average and training weights; the model has been loaded before."""
        self.num_updates = state["num_updates"]
        for name, value in self._other.items():
            value.copy_(state["weights"][name])
        if state["swapped"]:
            self._swap()
            self._swapped = False

    def _state(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._state().items():
            held = value.clone()
            value.copy_(self._other[name])
            self._other[name].copy_(held)
        self._swapped = not self._swapped
