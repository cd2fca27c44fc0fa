"""Configs written in Python: descriptions of calls, in files that import each other."""

import builtins
import copy
import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

import cloudpickle
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf, SCMode

from detectron2.utils.file_io import PathManager
from detectron2.utils.registry import _convert_target_to_string

__all__ = ["LazyCall", "LazyConfig"]

Config = DictConfig | ListConfig


class LazyCall:
    """Describe a call instead of making it: `LazyCall(nn.Linear)(in_features=4, out_features=2)`.

    The description is a `DictConfig` with the keyword arguments and `_target_`; edit it, then give
    it to `instantiate`. Positional arguments are not possible.
    """

    def __init__(self, target: Callable[..., Any] | str | Mapping[str, Any]) -> None:
        if not (callable(target) or isinstance(target, (str, Mapping))):
            raise TypeError(
                "LazyCall takes a callable, its dotted path or the description of a call that "
                f"returns one; got {target!r}."
            )
        self._target = target

    def __call__(self, **kwargs: Any) -> DictConfig:
        target = self._target
        if is_dataclass(target):  # as an object, omegaconf would take it for a schema
            target = _convert_target_to_string(target)
        return _to_config({**kwargs, "_target_": target})


class LazyConfig:
    """Load, change, save and print configs."""

    @staticmethod
    def load(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Load a config file (.py, .yaml, .yml).

        Relative imports in a Python config find other config files by their place, run them anew
        every time, and give dicts as `DictConfig`.

        Args:
            filename: path of the file.
            keys: what to return: the value of one name, or the values of several. Without it, all
                dicts and configs of the file whose names do not begin with "_", in a `DictConfig`.

        Raises:
            ValueError: another suffix.
            SyntaxError: the file, or one it imports, is no Python; the message names it.
            ImportError: a relative import leads to no file.
        """
        suffix = os.path.splitext(filename)[1]
        if suffix not in (".py", ".yaml", ".yml"):
            raise ValueError(f"Config file {filename} has to be a Python or YAML file.")
        content: Any
        if suffix == ".py":
            content = _run_config_file(filename, {})
        else:
            with PathManager.open(filename) as file:
                content = OmegaConf.create(yaml.unsafe_load(file), flags={"allow_objects": True})
        if isinstance(keys, str):
            return _to_config(content[keys])
        if keys is not None:
            return tuple(_to_config(content[key]) for key in keys)
        if suffix == ".py":
            return _to_config(
                {
                    name: _to_config(value)
                    for name, value in content.items()
                    if isinstance(value, (dict, DictConfig, ListConfig)) and name[0] != "_"
                }
            )
        return content

    @staticmethod
    def load_rel(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Like `load`, with `filename` relative to the source file of the caller."""
        frame = inspect.currentframe()
        assert frame is not None and frame.f_back is not None
        caller = frame.f_back.f_code.co_filename
        assert caller != "<string>", "load_rel needs a caller with a source file."
        return LazyConfig.load(os.path.join(os.path.dirname(caller), filename), keys)

    @staticmethod
    def save(cfg: Config, filename: str) -> None:
        """Write a config as YAML; interpolations stay, callables become their dotted paths.

        What YAML cannot bring back (a lambda) is logged, and the config also goes to
        `filename + ".pkl"`.
        """
        cfg = _with_target_names(cfg)
        try:
            container = OmegaConf.to_container(
                cfg, resolve=False, structured_config_mode=SCMode.INSTANTIATE
            )
            text = yaml.dump(container, default_flow_style=None, allow_unicode=True, width=9999)
            with PathManager.open(filename, "w") as file:
                file.write(text)
            yaml.unsafe_load(text)
        except Exception as error:  # noqa: BLE001  (objects raise anything from their reducers)
            logging.getLogger(__name__).warning(
                "%s cannot be loaded again (%s); saving %s.pkl too.", filename, error, filename
            )
            _save_pickle(cfg, filename + ".pkl")

    @staticmethod
    def apply_overrides(cfg: DictConfig, overrides: list[str]) -> DictConfig:
        """Change `cfg` in place by "a.b=1" strings in Hydra's override grammar, and return it.

        Raises:
            KeyError: a key lies below a value that is not a config.
        """
        for override in OverridesParser.create().parse_overrides(overrides):
            if override.is_delete():
                raise NotImplementedError(f"{override.input_line}: keys cannot be deleted.")
            key = override.key_or_group
            parts = key.split(".")
            for depth in range(1, len(parts)):
                parent = ".".join(parts[:depth])
                value = OmegaConf.select(cfg, parent, default=None)
                if value is not None and not OmegaConf.is_config(value):
                    raise KeyError(
                        f"Cannot set {key}: {parent} is no config but {type(value).__name__}."
                    )
            OmegaConf.update(cfg, key, override.value(), merge=True)
        return cfg

    @staticmethod
    def to_py(cfg: DictConfig, prefix: str = "cfg.") -> str:
        """Return the config as Python-like text to read: one assignment per top-level object."""
        text = "\n".join(_assignments(OmegaConf.to_container(cfg, resolve=True), prefix))
        try:
            import black
        except ImportError:
            return text
        try:
            return black.format_str(text, mode=black.Mode())
        except black.InvalidInput:
            return text


def _to_config(value: Any) -> Any:
    """Return a dict as `DictConfig` and anything else as it is."""
    return DictConfig(value, flags={"allow_objects": True}) if isinstance(value, dict) else value


def _run_config_file(filename: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Execute a config file in `namespace`, with its own meaning of relative imports."""
    with PathManager.open(filename) as file:
        source = file.read()
    try:
        code = compile(source, filename, "exec")
    except SyntaxError as error:
        raise SyntaxError(f"Config file {filename} has syntax error!") from error
    namespace["__file__"] = filename
    namespace["__builtins__"] = {**vars(builtins), "__import__": _import_in_config}
    exec(code, namespace)
    return namespace


def _import_in_config(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Stand in for `__import__` in config files."""
    if level == 0 or globals is None:
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    filename = _find_relative_file(globals["__file__"], name, level)
    module = ModuleType(f"detectron2._cfg_loader.{name}")
    _run_config_file(filename, vars(module))
    for imported in fromlist or ():
        if imported in vars(module):
            setattr(module, imported, _to_config(vars(module)[imported]))
    return module


def _find_relative_file(importer: str, name: str, level: int) -> str:
    only_files = "A relative import in a config file must name another config file."
    if not name:
        raise ImportError(f"{importer}: a relative import of a directory. {only_files}")
    folder = importer
    for _ in range(level):
        folder = os.path.dirname(folder)
    path = os.path.join(folder, *name.split("."))
    if PathManager.isfile(path + ".py"):
        return path + ".py"
    if PathManager.isdir(path):
        raise ImportError(f"{importer}: relative import of directory {path}. {only_files}")
    raise ImportError(f"{importer} imports {name}, but {path}.py does not exist.")


def _save_pickle(cfg: Any, filename: str) -> None:
    try:
        content = cloudpickle.dumps(cfg)
    except Exception:  # a job must not end because its config cannot be kept
        logging.getLogger(__name__).exception("The config cannot be saved to %s.", filename)
        return
    with PathManager.open(filename, "wb") as file:
        file.write(content)


def _with_target_names(cfg: Any) -> Any:
    """Copy a config and replace the callables under `_target_` by their dotted paths."""
    try:
        cfg = copy.deepcopy(cfg)
    except Exception:  # noqa: BLE001  (some object in it cannot be copied: save it as it is)
        return cfg
    _name_targets(cfg)
    return cfg


def _name_targets(cfg: Any) -> None:
    if isinstance(cfg, DictConfig):
        if "_target_" in cfg and callable(cfg._target_) and hasattr(cfg._target_, "__qualname__"):
            cfg._target_ = _convert_target_to_string(cfg._target_)
        keys: Sequence[Any] = list(cfg)
    elif isinstance(cfg, ListConfig):
        keys = range(len(cfg))
    else:
        return
    for key in keys:
        if not (OmegaConf.is_missing(cfg, key) or OmegaConf.is_interpolation(cfg, key)):
            _name_targets(cfg[key])


def _is_plain_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" not in value


def _assignments(cfg: Any, prefix: str) -> list[str]:
    lines: list[str] = []
    for name, value in sorted(cfg.items()):
        if _is_plain_mapping(value):
            lines += _assignments(value, f"{prefix}{name}.")
        else:
            lines.append(f"{prefix}{name}={_expression(value)}")
    return lines


def _expression(value: Any) -> str:
    if _is_plain_mapping(value):
        items = (f"{key!r}: {_expression(item)}" for key, item in sorted(value.items()))
        return "{" + ",".join(items) + "}"
    if isinstance(value, Mapping):
        target = value["_target_"]
        name = target if isinstance(target, str) else _convert_target_to_string(target)
        arguments = (
            f"{key}={_expression(item)}" for key, item in sorted(value.items()) if key != "_target_"
        )
        return f"{name}({', '.join(arguments)})"
    if isinstance(value, list):
        return "[" + ",".join(map(_expression, value)) + "]"
    return repr(value)
