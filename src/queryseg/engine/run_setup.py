"""What happens once per process before anything is built: folder, logs, device."""

import importlib.util
import logging
from pathlib import Path

import detectron2
import torch
from detectron2.config import LazyConfig
from detectron2.utils import comm
from omegaconf import DictConfig

import queryseg
from queryseg.engine.config import ConfigError
from queryseg.engine.logs import set_up_logging

_logger = logging.getLogger("queryseg")


def set_up_run(cfg: DictConfig) -> None:
    """Make the output folder and start logging into its `log.txt`.

    Args:
        cfg: the config tree, of which `train` is used.

    Raises:
        ConfigError: the output folder cannot be made.
    """
    output_dir = Path(cfg.train.output_dir)
    if comm.is_main_process():
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"train.output_dir is {output_dir}, where no folder can be made "
                f"({error.strerror}): choose another"
            ) from error
    comm.synchronize()
    set_up_logging(output_dir, comm.get_rank())
    _logger.info(
        "QuerySeg %s, Detectron2 %s, torch %s, device %s, process %d of %d, output in %s",
        queryseg.__version__,
        detectron2.__version__,
        torch.__version__,
        resolve_device(cfg.train.device),
        comm.get_rank() + 1,
        comm.get_world_size(),
        output_dir,
    )


def save_config(cfg: DictConfig) -> None:
    """Keep the whole config as `config.yaml` in the output folder; `load_config` reads it again."""
    if comm.is_main_process():
        LazyConfig.save(cfg, str(Path(cfg.train.output_dir, "config.yaml")))


def resolve_device(name: str) -> torch.device:
    """The device that `train.device` means: `"auto"` is the GPU where there is one.

    Raises:
        ConfigError: CUDA is asked for and not there, or the name is not a device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"train.device is {name!r}: use auto, cpu or cuda") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                f"train.device is {name!r} but torch sees no GPU: set train.device=auto, or run "
                "python -m queryseg.tools.collect_env to see why"
            )
        if device.index is None:
            return torch.device("cuda", torch.cuda.current_device())
    return device


def has_tensorboard() -> bool:
    """Whether TensorBoard's writer can be used; says so if not."""
    found = importlib.util.find_spec("tensorboard") is not None
    if not found:
        _logger.warning("No TensorBoard curves: pip install tensorboard to get them.")
    return found
