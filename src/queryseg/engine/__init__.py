"""Training: configs, the trainer and its hooks, the command line."""

from queryseg.engine.command_line import train_main
from queryseg.engine.config import ConfigError, apply_overrides, load_config
from queryseg.engine.param_groups import get_param_groups
from queryseg.engine.scale_schedule import scale_schedule
from queryseg.engine.trainer import LazyTrainer

__all__ = [
    "ConfigError",
    "LazyTrainer",
    "apply_overrides",
    "get_param_groups",
    "load_config",
    "scale_schedule",
    "train_main",
]
