"""Configs as code: `LazyCall` describes calls, `LazyConfig` loads, `instantiate` builds."""

from detectron2._subset import outside
from detectron2.config.config import CfgNode, configurable, get_cfg
from detectron2.config.instantiate import instantiate
from detectron2.config.lazy import LazyCall, LazyConfig

__all__ = ["CfgNode", "LazyCall", "LazyConfig", "configurable", "get_cfg", "instantiate"]

__getattr__ = outside(
    __name__, "downgrade_config", "global_cfg", "set_global_cfg", "upgrade_config"
)
