"""Training: configs, the trainer and its hooks."""

from queryseg.engine.config import ConfigError, apply_overrides, load_config

__all__ = ["ConfigError", "apply_overrides", "load_config"]
