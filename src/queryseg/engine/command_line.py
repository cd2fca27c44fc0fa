"""What `train_net.py` and `python -m queryseg.tools.train` do."""

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from queryseg.checkpoint import Checkpointer, CheckpointError
from queryseg.data.registration import register_own_data
from queryseg.engine.config import ConfigError, apply_overrides, load_config
from queryseg.engine.evaluation import Results, results_table, write_results
from queryseg.engine.own_data import kind_of_data, use_own_data
from queryseg.engine.processes import run_in_processes
from queryseg.engine.run_setup import resolve_device, save_config, set_up_run
from queryseg.engine.scale_schedule import scale_schedule, warn_about_batch
from queryseg.engine.trainer import SECTIONS, LazyTrainer

CHECKPOINT_KEY = "train.init_checkpoint="
OWN_DATA_FLAGS = ("train_json", "train_images", "val_json", "val_images")
EXAMPLES = """
examples:
  train               train_net.py --config-file configs/fastinst/fastinst_tiny.py
  change anything     train_net.py --config-file ... optimizer.lr=2e-4 train.output_dir=output/a
  go on               train_net.py --config-file ... --resume
  evaluate            train_net.py --config-file ... --eval-only train.init_checkpoint=FILE
  another batch size  train_net.py --config-file ... --batch-size 4
  own data            train_net.py --config-file ... --train-json a.json --train-images DIR
                                   --val-json b.json --val-images DIR
  eight GPUs          train_net.py --config-file ... --num-gpus 8
"""
USER_ERRORS = (ValueError, FileNotFoundError, CheckpointError, FloatingPointError)
_logger = logging.getLogger("queryseg")


def train_main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, check all that can be checked, and train or evaluate.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Raises:
        SystemExit: with status 2 and one line, if something on the command line is wrong.
    """
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)
    try:
        read_config(args)  # finds most mistakes before any process is started
        run_in_processes(
            run,
            (args,),
            num_processes=args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
        )
    except (ConfigError, FileNotFoundError) as error:
        parser.exit(2, f"error: {error}\n")


def build_parser() -> argparse.ArgumentParser:
    """Detectron2's usual arguments and ours."""
    parser = argparse.ArgumentParser(
        description="Train or evaluate a model from a LazyConfig.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="a path or a name")
    parser.add_argument("--resume", action="store_true", help="go on in train.output_dir")
    parser.add_argument("--eval-only", action="store_true", help="evaluate, do not train")
    parser.add_argument("--batch-size", type=int, help="rescales the learning rate and length too")
    processes = parser.add_argument_group("processes (or use torchrun)")
    processes.add_argument("--num-gpus", type=int, default=1, help="processes on each machine")
    processes.add_argument("--num-machines", type=int, default=1)
    processes.add_argument("--machine-rank", type=int, default=0, help="number of this machine")
    processes.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of machine 0")
    own = parser.add_argument_group(
        "own data in COCO format, or YouTube-VIS format for a model of videos (give all four)"
    )
    own.add_argument("--train-json", metavar="FILE")
    own.add_argument("--train-images", metavar="DIR")
    own.add_argument("--val-json", metavar="FILE")
    own.add_argument("--val-images", metavar="DIR")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="changes of the config")
    return parser


def read_config(args: argparse.Namespace) -> tuple[DictConfig, int]:
    """The config tree that a command line asks for, and the batch size its recipe is written for.

    Raises:
        ConfigError: a wrong key or value, or some but not all flags for own data.
    """
    cfg = load_config(args.config_file)
    missing = [section for section in SECTIONS if section not in cfg]
    if missing:
        raise ConfigError(f"{args.config_file} has no {', '.join(missing)}: it cannot be trained")
    recipe_batch = cfg.train.total_batch_size
    if args.batch_size is not None:
        scale_schedule(cfg, args.batch_size)
        recipe_batch = args.batch_size
    apply_overrides(cfg, args.opts)
    resolve_device(cfg.train.device)
    given = [flag for flag in OWN_DATA_FLAGS if getattr(args, flag)]
    if given and len(given) < len(OWN_DATA_FLAGS):
        absent = [f"--{flag.replace('_', '-')}" for flag in OWN_DATA_FLAGS if flag not in given]
        raise ConfigError(f"own data need all four flags: {', '.join(absent)} is missing")
    named = any(CHECKPOINT_KEY in word for word in args.opts) and cfg.train.init_checkpoint
    if args.eval_only and not named:
        cfg.train.init_checkpoint = _trained_checkpoint(cfg)
    return cfg, recipe_batch


def run(args: argparse.Namespace) -> None:
    """Train or evaluate in this process, one of those that belong to the run."""
    cfg, recipe_batch = read_config(args)
    set_up_run(cfg)
    try:
        if args.train_json:
            paths = {flag: getattr(args, flag) for flag in OWN_DATA_FLAGS}
            use_own_data(cfg, register_own_data(**paths, kind=kind_of_data(cfg)))
        save_config(cfg)
        if args.eval_only:
            _evaluate(cfg)
        else:
            warn_about_batch(recipe_batch, cfg.train.total_batch_size)
            _train(cfg, resume=args.resume)
    except USER_ERRORS as error:
        _logger.debug("In full:", exc_info=True)  # into log.txt; the user sees one line
        raise SystemExit(f"error: {_message_of(error)}") from error
    except KeyboardInterrupt:
        _logger.debug("In full:", exc_info=True)
        _logger.warning("Stopped from the keyboard. %s", _how_to_go_on(cfg))
        raise SystemExit(130) from None  # what shells give for Ctrl-C


def _message_of(error: Exception) -> str:
    """What an error says; of one in a loader's worker, without the worker's traceback."""
    text = str(error)
    if "Original Traceback" not in text:
        return text
    starts = [match.end() for match in re.finditer(r"^[A-Za-z_][\w.]*: ", text, re.MULTILINE)]
    return text[starts[-1] :].strip() if starts else text


def _how_to_go_on(cfg: DictConfig) -> str:
    file = Checkpointer(torch.nn.Module(), cfg.train.output_dir).get_checkpoint_file()
    if not file:
        period = cfg.train.checkpointer.period
        return f"No checkpoint was written yet (train.checkpointer.period={period})"
    return f"The last checkpoint is {file}: the same command with --resume goes on from it"


def _train(cfg: DictConfig, *, resume: bool) -> None:
    torch.backends.cudnn.benchmark = cfg.train.cudnn_benchmark
    trainer = LazyTrainer(cfg)
    trainer.resume_or_load(resume)
    results = trainer.train()
    _logger.info("Weights: %s", Path(cfg.train.output_dir, "model_final.pth"))
    if results:
        _report(cfg, results)


def _evaluate(cfg: DictConfig) -> None:
    model = LazyTrainer.build_model(cfg)
    Checkpointer(model, complete=True).load(cfg.train.init_checkpoint)
    results = LazyTrainer.test(cfg, model)
    if results:
        _report(cfg, results)


def _report(cfg: DictConfig, results: Results) -> None:
    file = Path(cfg.train.output_dir, "results.json")
    write_results(results, file)
    _logger.info("Results, also in %s:\n%s", file, results_table(results))


def _trained_checkpoint(cfg: DictConfig) -> str:
    """The last checkpoint of the run; before there is one, what the run would start from."""
    file = Checkpointer(torch.nn.Module(), cfg.train.output_dir).get_checkpoint_file()
    if not file and not cfg.train.init_checkpoint:
        raise ConfigError(
            f"nothing to evaluate: {cfg.train.output_dir} has no checkpoint; "
            f"set {CHECKPOINT_KEY}FILE"
        )
    return file or cfg.train.init_checkpoint
