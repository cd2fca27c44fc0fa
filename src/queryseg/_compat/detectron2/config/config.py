"""What is left of YAML configs: their names, and `configurable` for explicit construction."""

import functools
from collections.abc import Callable
from typing import Any

from fvcore.common.config import CfgNode as YacsConfig
from omegaconf import DictConfig

from detectron2._subset import NeedsRealDetectron2, needs_real

__all__ = ["CfgNode", "configurable", "get_cfg"]

CfgNode = needs_real("detectron2.config.CfgNode")
get_cfg = needs_real("detectron2.config.get_cfg")


def configurable(
    function: Callable[..., Any] | None = None, *, from_config: Callable[..., Any] | None = None
) -> Any:
    """Mark an `__init__` or a function that the real package can also call with a config.

    Here only the call with explicit arguments works; one with a config raises.
    """
    if function is None:
        return configurable

    @functools.wraps(function)
    def with_explicit_arguments(*args: Any, **kwargs: Any) -> Any:
        for argument in (*args[:2], kwargs.get("cfg")):
            if isinstance(argument, (YacsConfig, DictConfig)):
                raise NeedsRealDetectron2(f"{function.__qualname__} called with a config")
        return function(*args, **kwargs)

    return with_explicit_arguments
