"""The usual set-up of a job: command line, output folder, logs, seed, writers."""

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2._subset import NeedsRealDetectron2, leave_out, needs_real
from detectron2.config import LazyConfig
from detectron2.engine.train_loop import SimpleTrainer, TrainerBase
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

__all__ = [
    "DefaultPredictor",
    "DefaultTrainer",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "default_writers",
]

DefaultPredictor = needs_real("detectron2.engine.DefaultPredictor")


def create_ddp_model(
    model: nn.Module, *, fp16_compression: bool = False, **kwargs: Any
) -> nn.Module:
    """Wrap the model in `DistributedDataParallel` if there are several processes.

    Args:
        model: on the device of this process.
        fp16_compression: send gradients as fp16.
        kwargs: arguments of `DistributedDataParallel`.
    """
    if comm.get_world_size() == 1:
        return model
    if "device_ids" not in kwargs and next(model.parameters()).is_cuda:
        kwargs["device_ids"] = [comm.get_local_rank()]
    wrapped = DistributedDataParallel(model, **kwargs)
    if fp16_compression:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        wrapped.register_comm_hook(state=None, hook=default_hooks.fp16_compress_hook)
    return wrapped


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that training scripts share."""
    script = sys.argv[0]
    examples = f"""
Examples:

One machine with 8 GPUs:
    {script} --num-gpus 8 --config-file config.py

Other values in the config:
    {script} --config-file config.py train.max_iter=1000 train.output_dir=output/short

Two machines:
    {script} --machine-rank 0 --num-machines 2 --dist-url <URL> [other arguments]
    {script} --machine-rank 1 --num-machines 2 --dist-url <URL> [other arguments]
"""
    parser = argparse.ArgumentParser(
        epilog=epilog or examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="the config")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in the output folder"
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate, do not train")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs on each machine")
    parser.add_argument("--num-machines", type=int, default=1, help="machines")
    parser.add_argument("--machine-rank", type=int, default=0, help="number of this machine")
    # The same port every time: a process left over from an earlier run is noticed.
    user = os.getuid() if sys.platform != "win32" else 1
    port = 2**15 + 2**14 + hash(user) % 2**14
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{port}",
        help="where the processes meet: tcp://host:port, or auto on one machine",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="changes of the config: path.to.key=value ..."
    )
    return parser


def default_setup(cfg: DictConfig, args: argparse.Namespace | Mapping[str, Any]) -> None:
    """Prepare a job: output folder, loggers, environment and config in the log, seed.

    It reads `train.{output_dir, seed, cudnn_benchmark, float32_precision}`; the seed of each
    process is `train.seed` plus its rank, and random if negative. config.yaml is written to the
    output folder.

    Args:
        cfg: the whole config.
        args: command line arguments to log; `eval_only` leaves the cuDNN benchmark off.
    """
    if not isinstance(cfg, DictConfig):
        raise NeedsRealDetectron2("default_setup with a YAML config")
    output_dir = _select(cfg, "output_dir", "train.output_dir", default=None)
    rank = comm.get_rank()
    if comm.is_main_process() and output_dir:
        PathManager.mkdirs(output_dir)
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    logger = setup_logger(output_dir, distributed_rank=rank)

    logger.info(f"Rank of current process: {rank}. World size: {comm.get_world_size()}")
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    config_file = getattr(args, "config_file", "")
    if config_file:
        with PathManager.open(config_file) as file:
            logger.info("Contents of args.config_file=%s:\n%s", config_file, file.read())
    if comm.is_main_process() and output_dir:
        path = os.path.join(output_dir, "config.yaml")
        LazyConfig.save(cfg, path)
        logger.info("Full config saved to %s", path)

    seed = _select(cfg, "train.seed", default=-1)
    seed_all_rng(None if seed < 0 else seed + rank)
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = _select(cfg, "train.cudnn_benchmark", default=False)
    precision = _select(cfg, "train.float32_precision", default="")
    if precision and torch.cuda.is_available():
        logger.info("float32 precision: %s", precision)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision != "highest"


def _select(cfg: DictConfig, *keys: str, default: Any) -> Any:
    """Value of the first key that the config has."""
    absent = object()
    for key in keys:
        value = OmegaConf.select(cfg, key, default=absent)
        if value is not absent:
            return value
    return default


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Return writers to the log, to metrics.json and (if it is installed) to TensorBoard.

    Args:
        output_dir: folder of metrics.json and the TensorBoard events.
        max_iter: number of iterations, for the ETA.
    """
    PathManager.mkdirs(output_dir)
    writers: list[EventWriter] = [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
    ]
    if importlib.util.find_spec("tensorboard") is None:
        logging.getLogger(__name__).info("No TensorBoard events: pip install tensorboard")
    else:
        writers.append(TensorboardXWriter(output_dir))
    return writers


def _inner(name: str) -> property:
    """Attribute `name` of the trainer inside."""
    return property(
        lambda self: getattr(self._trainer, name),
        lambda self, value: setattr(self._trainer, name, value),
    )


class DefaultTrainer(TrainerBase):
    """A trainer around another one, `_trainer`, which makes the steps.

    In the real package it is built from a YAML config. Here the methods that read one raise; a
    subclass overrides them and sets `_trainer`, `start_iter`, `max_iter`, `checkpointer`.

    Attributes:
        model: the model that `_trainer` trains.
        data_loader: the loader that it reads.
        optimizer: the optimizer that it steps.
    """

    _trainer: SimpleTrainer
    model = _inner("model")
    data_loader = _inner("data_loader")
    optimizer = _inner("optimizer")

    def run_step(self) -> None:
        """One step of `_trainer`, at this trainer's iteration."""
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def state_dict(self) -> dict[str, Any]:
        """Adds the state of `_trainer`."""
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Loads the state of `_trainer` too."""
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])


# These read YAML configs.
leave_out(
    DefaultTrainer,
    "__init__ auto_scale_workers build_evaluator build_hooks build_lr_scheduler build_model "
    "build_optimizer build_test_loader build_train_loader build_writers resume_or_load test train",
)
