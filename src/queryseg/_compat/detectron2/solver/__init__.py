"""Optimizer parameter groups, gradient clipping, learning-rate schedules."""

from detectron2._subset import outside
from detectron2.solver.build import *  # noqa: F403
from detectron2.solver.lr_scheduler import *  # noqa: F403

__getattr__ = outside(__name__, "WarmupCosineLR", "WarmupMultiStepLR")
