"""Learning-rate schedules: factors on the base rate over the fraction of the training done.

The iteration numbers are those of the recipe. Only their ratio to `max_iter` counts, so a run with
another `train.max_iter` keeps the shape of the curve.
"""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler
from omegaconf import DictConfig


def multi_step(
    max_iter: int,
    milestones: tuple[int, ...],
    *,
    gamma: float = 0.1,
    warmup_iters: int = 0,
    warmup_factor: float = 0.001,
) -> DictConfig:
    """The rate times `gamma` at every milestone."""
    schedule = L(MultiStepParamScheduler)(
        values=[gamma**step for step in range(len(milestones) + 1)],
        milestones=list(milestones),
        num_updates=max_iter,
    )
    return _with_warmup(schedule, warmup_iters / max_iter, warmup_factor)


def cosine(
    max_iter: int, *, end: float = 0.0, warmup_iters: int = 0, warmup_factor: float = 0.001
) -> DictConfig:
    """Half a cosine from 1 down to `end`."""
    schedule = L(CosineParamScheduler)(start_value=1.0, end_value=end)
    return _with_warmup(schedule, warmup_iters / max_iter, warmup_factor)


def _with_warmup(schedule: DictConfig, length: float, factor: float) -> DictConfig:
    if length == 0:
        return schedule
    return L(WarmupParamScheduler)(
        scheduler=schedule, warmup_length=length, warmup_factor=factor, warmup_method="linear"
    )


lr_multiplier = multi_step(90_000, (60_000, 80_000), warmup_iters=1000)
