"""Learning-rate schedules as multipliers over the whole of training."""

from typing import Any

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["LRMultiplier", "LRScheduler", "WarmupParamScheduler"]


class WarmupParamScheduler(CompositeParamScheduler):
    """Puts a warm-up before another schedule."""

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        """Describe the warm-up.

        Args:
            scheduler: the schedule after it.
            warmup_factor: first value of the warm-up, relative to the schedule's first value.
            warmup_length: its part of training, in [0, 1].
            warmup_method: "linear" (ends at the schedule's value there) or "constant".
            rescale_interval: whether the schedule begins after the warm-up, instead of running
                under it from the start.
        """
        first = scheduler(0.0)
        last = first if rescale_interval else scheduler(warmup_length)
        warmup: ParamScheduler
        if warmup_method == "linear":
            warmup = LinearParamScheduler(warmup_factor * first, last)
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(warmup_factor * first)
        else:
            raise ValueError(f"Unknown warm-up {warmup_method!r}: use 'linear' or 'constant'.")
        super().__init__(
            [warmup, scheduler],
            lengths=[warmup_length, 1 - warmup_length],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
        )


class LRMultiplier(LRScheduler):
    """Multiplies the initial learning rate of every group by a fvcore `ParamScheduler`."""

    def __init__(
        self, optimizer: Optimizer, multiplier: ParamScheduler, max_iter: int, last_iter: int = -1
    ) -> None:
        """Start at iteration `last_iter + 1` of `max_iter`; -1 takes the groups' initial rates."""
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"multiplier has to be a fvcore ParamScheduler, got {multiplier!r}.")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        """The initial rates and the iteration; the multiplier has no state."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        """Learning rate of every group at the current iteration."""
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]
