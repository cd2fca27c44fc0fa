"""Finding, loading, overriding and checking LazyConfig files."""

import difflib
import importlib.util
import inspect
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

CONFIG_PACKAGE = "queryseg.configs"
CONFIG_SUFFIXES = (".py", ".yaml", ".yml")


class ConfigError(ValueError):
    """A config, an override or a path in one of them is wrong; the message says what to change."""


def load_config(path_or_name: str | Path) -> DictConfig:
    """Load a LazyConfig file and check its keys.

    Args:
        path_or_name: a path to a `.py` or `.yaml` config, or the name of one that is installed with
            QuerySeg, such as `"fastinst/fastinst_tiny.py"` (a leading `configs/` is fine).

    Returns:
        The config tree. Nothing in it is built yet.

    Raises:
        ConfigError: no such file, an argument that its `_target_` does not take, or an unknown key
            of the section `train`. The message names the nearest match.
    """
    cfg = LazyConfig.load(str(find_config(path_or_name)))
    check_config(cfg)
    return cfg


def find_config(path_or_name: str | Path) -> Path:
    """The file that `load_config` would read."""
    path = Path(path_or_name)
    if path.suffix not in CONFIG_SUFFIXES:
        raise ConfigError(
            f"config file '{path}' must end in one of {', '.join(CONFIG_SUFFIXES)}"
            if str(path_or_name)
            else "no config file given: pass --config-file, e.g. configs/fastinst/fastinst_tiny.py"
        )
    if path.is_file():
        return path
    name = Path(*path.parts[1:]) if path.parts[0] == "configs" else path
    for root in _installed_roots():
        if (root / name).is_file():
            return root / name
    known = list(installed_configs())
    hint = _nearest(name.as_posix(), known) or ", ".join(known)
    raise ConfigError(
        f"config file '{path}' does not exist, neither as a path nor below {CONFIG_PACKAGE}. "
        f"Did you mean {hint}?"
    )


def installed_configs() -> Iterator[str]:
    """Names of the configs that come with QuerySeg, without the shared pieces in `common/`."""
    for root in _installed_roots():
        for path in sorted(root.glob("*/*.py")):
            if path.parent.name != "common" and path.name != "__init__.py":
                yield path.relative_to(root).as_posix()


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply `key=value` overrides in place, in Hydra's grammar, and check the result.

    Args:
        cfg: the config tree.
        overrides: for example `["train.max_iter=100", "optimizer.lr=2e-4"]`. `+key=value` adds a
            key that the config does not have.

    Returns:
        `cfg`.

    Raises:
        ConfigError: a malformed override, a key that does not exist, or text for a number.
    """
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise ConfigError(f"cannot read the override '{text}': write key=value") from error
        if override.is_delete():
            raise ConfigError(f"override '{text}': keys cannot be deleted")
        if not (override.is_add() or override.is_force_add()):
            _check_key_exists(cfg, override.key_or_group)
            _check_number_stays(cfg, override.key_or_group, override.value())
    try:
        LazyConfig.apply_overrides(cfg, list(overrides))
    except KeyError as error:
        raise ConfigError(str(error.args[0])) from error
    check_config(cfg)
    return cfg


def check_config(cfg: DictConfig) -> None:
    """Refuse arguments that a `_target_` does not take and unknown or mistyped `train` keys.

    Raises:
        ConfigError: naming the full key and its nearest match.
    """
    for prefix, node in _calls(cfg, ""):
        _check_arguments(prefix, node)
    if OmegaConf.is_dict(cfg.get("train")):
        _check_section("train", cfg.train, _train_defaults())


def _installed_roots() -> list[Path]:
    spec = importlib.util.find_spec(CONFIG_PACKAGE)
    return [] if spec is None else [Path(root) for root in spec.submodule_search_locations or ()]


@cache
def _train_defaults() -> DictConfig:
    return LazyConfig.load(str(find_config("common/train.py"))).train


def _nearest(name: str, known: Sequence[str]) -> str:
    """The known names closest to `name`; those that end in the same word if none is close."""
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    last = name.rsplit(".", 1)[-1]
    return " or ".join(close or [key for key in known if key.rsplit(".", 1)[-1] == last][:3])


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    nearest = _nearest(name, known)
    return f"did you mean {nearest}?" if nearest else f"it has {', '.join(known)}."


def _raw_items(node: DictConfig | ListConfig) -> Iterator[tuple[str, Any]]:
    """Children by key, leaving out interpolations: they point at nodes visited elsewhere."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
            yield str(key), node[key]


def _calls(node: Any, prefix: str) -> Iterator[tuple[str, DictConfig]]:
    if not OmegaConf.is_config(node) or node._is_none():
        return
    if isinstance(node, DictConfig) and "_target_" in node:
        yield prefix, node
    for key, child in _raw_items(node):
        yield from _calls(child, f"{prefix}.{key}" if prefix else key)


def _check_arguments(prefix: str, node: DictConfig) -> None:
    if OmegaConf.is_config(node["_target_"]):
        return
    target = locate(node["_target_"]) if isinstance(node["_target_"], str) else node["_target_"]
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature to compare with
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for key in map(str, node):
        if key != "_target_" and key not in known:
            name = getattr(target, "__qualname__", str(target))
            raise ConfigError(
                f"unknown config key '{prefix}.{key}': {name} takes no argument '{key}'; "
                f"{_did_you_mean(key, known)}"
            )


def _check_section(prefix: str, section: DictConfig, defaults: DictConfig) -> None:
    for key in map(str, section):
        name, value = f"{prefix}.{key}", section[key]
        if key not in defaults:
            known = [f"{prefix}.{default!s}" for default in defaults]
            raise ConfigError(f"unknown config key '{name}'; {_did_you_mean(name, known)}")
        default = defaults[key]
        if OmegaConf.is_dict(default):
            if not OmegaConf.is_dict(value):
                raise ConfigError(
                    f"'{name}' is a section with {', '.join(map(str, default))}: got {value!r}"
                )
            _check_section(name, value, default)
        elif not _same_kind(value, default):
            kind = type(default).__name__
            raise ConfigError(f"'{name}' must be of type {kind} like {default!r}: got {value!r}")


def _same_kind(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _check_key_exists(cfg: DictConfig, key: str) -> None:
    """A key may be new only as an argument of a call, which `check_config` then looks at."""
    node: Any = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not OmegaConf.is_config(node):
            value = ".".join(parts[:depth])
            raise ConfigError(f"unknown config key '{key}': '{value}' is a value, not a section")
        if isinstance(node, ListConfig):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(
                    f"unknown config key '{key}': '{'.'.join(parts[:depth])}' is a list with "
                    f"{len(node)} entries"
                )
            node = node[int(part)]
            continue
        if part not in node:
            if depth == len(parts) - 1 and "_target_" in node:
                return
            known = [".".join([*parts[:depth], str(sibling)]) for sibling in node]
            nearest = _nearest(".".join(parts[: depth + 1]), known) or _nearest(key, _all_keys(cfg))
            raise ConfigError(
                f"unknown config key '{key}'"
                + (f"; did you mean {nearest}?" if nearest else ".")
                + ("" if parts[0] == "train" else f" To add a new key write +{key}=...")
            )
        node = node[part]


def _check_number_stays(cfg: DictConfig, key: str, value: Any) -> None:
    """A number may become another one, nothing, or a reference, but not a word."""
    if not isinstance(value, str) or "${" in value:
        return
    old = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
    if isinstance(old, int | float) and not isinstance(old, bool):
        kind = type(old).__name__
        raise ConfigError(f"'{key}' must be of type {kind} like {old!r}: got {value!r}")


def _all_keys(cfg: DictConfig) -> list[str]:
    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key, child in _raw_items(node):
            name = f"{prefix}.{key}" if prefix else key
            yield name
            if OmegaConf.is_config(child) and not child._is_none():
                yield from walk(child, name)

    return list(walk(cfg, ""))
