"""From descriptions of calls to objects."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from detectron2.utils.registry import _convert_target_to_string, locate

__all__ = ["dump_dataclass", "instantiate"]


def dump_dataclass(obj: Any) -> dict[str, Any]:
    """Return the description from which `instantiate` makes an equal dataclass instance."""
    assert dataclasses.is_dataclass(obj) and not isinstance(obj, type), (
        f"dump_dataclass takes an instance of a dataclass, got {obj!r}."
    )

    def dump(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [dump(item) for item in value]
        return dump_dataclass(value) if dataclasses.is_dataclass(value) else value

    fields = {field.name: dump(getattr(obj, field.name)) for field in dataclasses.fields(obj)}
    return {"_target_": _convert_target_to_string(type(obj)), **fields}


def instantiate(cfg: Any) -> Any:
    """Call what `cfg` describes, its arguments first.

    Args:
        cfg: a mapping with `_target_` (a callable, its dotted path, or the description of a call
            that returns one) and arguments; or a list, whose items are instantiated (a `ListConfig`
            gives a `ListConfig`). Anything else, a mapping without `_target_` too, is returned as
            it is.

    Raises:
        ImportError: a dotted path leads to nothing.
        TypeError: the arguments do not fit; the target's name is logged.
    """
    if isinstance(cfg, ListConfig):
        return ListConfig([instantiate(item) for item in cfg], flags={"allow_objects": True})
    if isinstance(cfg, list):
        return [instantiate(item) for item in cfg]
    if isinstance(cfg, DictConfig) and dataclasses.is_dataclass(cfg._metadata.object_type):
        return OmegaConf.to_object(cfg)
    if not (isinstance(cfg, Mapping) and "_target_" in cfg):
        return cfg

    arguments = {name: instantiate(value) for name, value in cfg.items()}
    target = arguments.pop("_target_")
    if isinstance(target, str):
        target = locate(target)
    assert callable(target), f"_target_ {target!r} cannot be called."
    try:
        return target(**arguments)
    except TypeError:
        logging.getLogger(__name__).error("Error when instantiating %s!", _name_of(target))
        raise


def _name_of(target: Any) -> str:
    if hasattr(target, "__qualname__"):
        return f"{target.__module__}.{target.__qualname__}"
    return str(target)
