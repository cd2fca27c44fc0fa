"""`LazyTrainer`: Detectron2's `DefaultTrainer`, driven by a LazyConfig."""

import copy
import logging
import math
import weakref
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import (
    DefaultTrainer,
    HookBase,
    TrainerBase,
    create_ddp_model,
    hooks,
)
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import DictConfig
from torch import nn

from queryseg.checkpoint import Checkpointer
from queryseg.class_names import dataset_class_names
from queryseg.data.loader import TrainLoader
from queryseg.engine.checkpoints import BestCheckpoint, CheckpointHook
from queryseg.engine.config import ConfigError
from queryseg.engine.ema import EMAHook
from queryseg.engine.evaluation import (
    EvaluationHook,
    Results,
    flatten_results,
    write_results,
)
from queryseg.engine.gradients import GradientClipper
from queryseg.engine.progress import ProgressHook
from queryseg.engine.random_state import get_random_state, kept_random_state, set_random_state
from queryseg.engine.run_setup import has_tensorboard, resolve_device
from queryseg.engine.scale_schedule import warn_about_batch
from queryseg.engine.train_step import NonFiniteError, TrainStep, check_parts

SECTIONS = ("model", "optimizer", "lr_multiplier", "dataloader", "train")
_logger = logging.getLogger("queryseg")


class LazyTrainer(DefaultTrainer):
    """Builds a training from a LazyConfig and runs it.

    It is a `DefaultTrainer` for code that asks for one, and takes nothing of its behaviour:
    whatever there reads a `CfgNode` is defined here. `docs/training.md` explains the config.

    A resumed training continues exactly: iteration `i` always trains on batch `i` with the
    augmentations that belong to it (`queryseg.data.sampler`), and the random numbers of every
    process, the averaged weights, the optimizer, the schedule and the loss scale are restored.

    Args:
        cfg: the config tree with the sections of `SECTIONS`.

    Attributes:
        model, optimizer, data_loader: what is trained, possibly wrapped for DDP, how, and on what.
        results: those of the last evaluation, None before the first.

    Raises:
        ConfigError: a section is missing, or a setting has an impossible value.
    """

    def __init__(self, cfg: DictConfig) -> None:
        TrainerBase.__init__(self)
        missing = [section for section in SECTIONS if section not in cfg]
        if missing:
            raise ConfigError(f"the config has no {', '.join(missing)}; it needs {SECTIONS}")
        if cfg.train.max_iter < 1:
            raise ConfigError(f"train.max_iter is {cfg.train.max_iter}: it must be at least 1")
        if cfg.train.seed < 0:
            raise ConfigError(f"train.seed is {cfg.train.seed}: it must not be negative")
        self.cfg = cfg
        self.start_iter = 0
        self.max_iter = cfg.train.max_iter
        self.results: Results | None = None
        self._random_states: list[Any] | None = None

        seed_all_rng(cfg.train.seed)  # the same initial weights in every process
        model = self.build_model(cfg)
        self._device = next(model.parameters()).device
        self._trainer = self._build_step(model)
        self.scheduler = self.build_lr_scheduler(cfg, self.optimizer)
        seed_all_rng(cfg.train.seed + comm.get_rank())

        output_dir = cfg.train.output_dir
        names = dataset_class_names(cfg) or None
        self.checkpointer = Checkpointer(
            model, output_dir, class_names=names, trainer=weakref.proxy(self)
        )
        self._weights_only = Checkpointer(model, output_dir, class_names=names)
        self._best = self._build_best_checkpoint()
        self._ema = EMAHook(model, cfg.train.ema.decay) if cfg.train.ema.enabled else None
        self.register_hooks(self.build_hooks())

    @property
    def model(self) -> nn.Module:
        """The model as it is trained: wrapped where there are several processes."""
        return self._trainer.model

    @property
    def data_loader(self) -> Iterable[Any]:
        """The loader of training batches."""
        return self._trainer.data_loader

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer."""
        return self._trainer.optimizer

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue the run in `train.output_dir`, or load the weights of `train.init_checkpoint`.

        Args:
            resume: continue if the folder has a checkpoint.

        Raises:
            FileNotFoundError, CheckpointError: the checkpoint is missing or does not fit.
        """
        output_dir = self.cfg.train.output_dir
        resuming = resume and self.checkpointer.has_checkpoint()
        extra = self.checkpointer.resume_or_load(self.cfg.train.init_checkpoint, resume=resuming)
        if resuming:
            self._continue_from(extra)
            _logger.info(
                "Resumed from %s, going on with iteration %d",
                self.checkpointer.get_checkpoint_file(),
                self.start_iter,
            )
        elif resume:
            _logger.info("Nothing to resume in %s: starting from the beginning", output_dir)
        elif self.checkpointer.has_checkpoint():
            _logger.warning(
                "%s holds an earlier run; its files will be overwritten (--resume continues it)",
                output_dir,
            )

    def train(self) -> Results | None:
        """Train until `train.max_iter`.

        Returns:
            The results of the final evaluation; None without an evaluator or on other processes
            than the main one.

        Raises:
            FloatingPointError: a loss or a gradient is not finite.
            FileNotFoundError, ValueError: the data to evaluate on are not there or not usable.
        """
        self._prepare_evaluation()
        TrainerBase.train(self, self.start_iter, self.max_iter)
        return self.results

    def before_train(self) -> None:
        """Call the hooks, then put back the random numbers of a resumed run."""
        TrainerBase.before_train(self)
        if self._random_states is not None:
            set_random_state(self._random_states[comm.get_rank()])

    def run_step(self) -> None:
        """Train on one batch."""
        try:
            self._trainer.run(self.iter, self.after_backward)
        except NonFiniteError as error:
            last = self.checkpointer.get_checkpoint_file() or "none yet"
            raise NonFiniteError(
                f"{error}. The model was not updated with it; last good checkpoint: {last}. "
                "Look at these images (python -m queryseg.tools.check_dataset), lower "
                "optimizer.lr or set train.clip_grad.enabled=True, and go on with --resume."
            ) from error

    def after_train(self) -> None:
        """Call the hooks, keep the final results, and stop the loader's workers."""
        TrainerBase.after_train(self)
        self._trainer.close()
        if self.iter >= self.max_iter and self.results and comm.is_main_process():
            write_results(self.results, Path(self.cfg.train.output_dir, "results.json"))

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks, optimizer and loss scale."""
        return TrainerBase.state_dict(self) | {"_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    def save_checkpoint(self, name: str) -> None:
        """Write everything a resumed run needs; to be called by all processes together.

        Args:
            name: file name in `train.output_dir`, without ending.
        """
        states = comm.gather(get_random_state())
        with self.evaluated_weights():
            self.checkpointer.save(
                name,
                random_states=states,
                data_order=getattr(self.data_loader, "fingerprint", None),
            )

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Inside, the model holds the weights to evaluate and publish: the average, if any."""
        return nullcontext() if self._ema is None else self._ema.applied()

    def evaluate(self) -> None:
        """Evaluate, record the figures, and keep the weights if they are the best so far."""
        if "evaluator" not in self.cfg.dataloader:
            return
        with self.evaluated_weights(), kept_random_state():
            self.results = self.test(self.cfg, self.checkpointer.model)
            flat = flatten_results(self.results or {})
            if comm.is_main_process():
                self._best.update(flat, self.iter)
        finite = {name: value for name, value in flat.items() if math.isfinite(value)}
        self.storage.put_scalars(**finite, smoothing_hint=False)

    def build_hooks(self) -> list[HookBase | None]:
        """Hooks in the order in which they act."""
        train = self.cfg.train
        main = comm.is_main_process()
        return [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            self._ema,
            CheckpointHook(self.save_checkpoint, train.output_dir, **train.checkpointer),
            EvaluationHook(self.evaluate, train.eval_period),
            ProgressHook(train.log_period) if main else None,
            hooks.PeriodicWriter(self.build_writers(), period=train.log_period) if main else None,
        ]

    def build_writers(self) -> list[EventWriter]:
        """Writers of `metrics.json` and of TensorBoard's event file."""
        output_dir = Path(self.cfg.train.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        writers: list[EventWriter] = [JSONWriter(str(output_dir / "metrics.json"))]
        if has_tensorboard():
            writers.append(TensorboardXWriter(str(output_dir)))
        return writers

    @classmethod
    def build_model(cls, cfg: DictConfig) -> nn.Module:
        """The model on its device."""
        return instantiate(cfg.model).to(resolve_device(cfg.train.device))

    @classmethod
    def build_optimizer(cls, cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over the parameter groups of the config."""
        node = copy.deepcopy(cfg.optimizer)
        node.params.model = model
        return instantiate(node)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: DictConfig, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule, stretched to `train.max_iter`."""
        multiplier: ParamScheduler = instantiate(cfg.lr_multiplier)
        return LRMultiplier(optimizer, multiplier, cfg.train.max_iter)

    @classmethod
    def build_train_loader(cls, cfg: DictConfig) -> Iterable[Any]:
        """The endless loader of training batches."""
        return instantiate(cfg.dataloader.train)

    @classmethod
    def build_test_loader(cls, cfg: DictConfig, dataset_name: str | None = None) -> Iterable[Any]:
        """The loader of test images, of another registered dataset if one is named."""
        node = copy.deepcopy(cfg.dataloader.test)
        if dataset_name is not None:
            node.dataset.names = dataset_name
        return instantiate(node)

    @classmethod
    def build_evaluator(cls, cfg: DictConfig, dataset_name: str | None = None) -> DatasetEvaluator:
        """The evaluator, for another registered dataset if one is named."""
        node = copy.deepcopy(cfg.dataloader.evaluator)
        if dataset_name is not None:
            node.dataset_name = dataset_name
        return instantiate(node)

    @classmethod
    def test(
        cls,
        cfg: DictConfig,
        model: nn.Module,
        evaluators: Sequence[DatasetEvaluator] | DatasetEvaluator | None = None,
    ) -> Results | None:
        """Evaluate a model that has its weights.

        Args:
            cfg: the config tree; `dataloader.test` and `dataloader.evaluator` are used.
            model: the model, not wrapped.
            evaluators: used instead of the config's.

        Returns:
            The figures by task, on the main process; None on the others.
        """
        evaluator = cls.build_evaluator(cfg) if evaluators is None else evaluators
        results = inference_on_dataset(model, cls.build_test_loader(cfg), evaluator)
        return results if comm.is_main_process() else None

    @staticmethod
    def auto_scale_workers(cfg: DictConfig, num_workers: int) -> DictConfig:
        """Nothing: batches do not grow with the number of processes here.

        `queryseg.engine.scale_schedule` is what changes a batch and all that hangs on it.
        """
        return cfg

    def _prepare_evaluation(self) -> None:
        """Read what will be evaluated on, so that a mistake in it is found before the training."""
        if "evaluator" in self.cfg.dataloader:
            with kept_random_state():
                self.build_evaluator(self.cfg)
                self.build_test_loader(self.cfg)

    def _build_step(self, model: nn.Module) -> TrainStep:
        train = self.cfg.train
        optimizer = self.build_optimizer(self.cfg, model)
        loader = self.build_train_loader(self.cfg)
        if isinstance(loader, TrainLoader):
            warn_about_batch(train.total_batch_size, loader.fingerprint["total_batch_size"])
        device_ids = [self._device.index] if self._device.type == "cuda" else None
        clip = train.clip_grad
        step = TrainStep(
            create_ddp_model(model, device_ids=device_ids, **train.ddp),
            loader,
            optimizer,
            device_type=self._device.type,
            amp_dtype=train.amp.dtype if train.amp.enabled else None,
            accumulate=train.accumulate,
            clipper=GradientClipper(clip.mode, clip.max_norm) if clip.enabled else None,
        )
        if isinstance(loader, TrainLoader):
            batch = int(loader.fingerprint["total_batch_size"])
            check_parts(batch // comm.get_world_size(), train.accumulate)
        return step

    def _build_best_checkpoint(self) -> BestCheckpoint:
        train = self.cfg.train
        return BestCheckpoint(
            lambda name: self._weights_only.save(name, iteration=self.iter),
            train.output_dir,
            **train.best_checkpoint,
        )

    def _continue_from(self, extra: dict[str, Any]) -> None:
        """Set iteration, place in the data and random numbers from a checkpoint's other entries."""
        self.start_iter = self.iter + 1
        self._best.resume()
        states = extra.get("random_states")
        if states is not None and len(states) == comm.get_world_size():
            self._random_states = states
        else:
            _logger.warning("The run had another number of processes: random numbers start anew")
        if not isinstance(self.data_loader, TrainLoader):
            _logger.warning("The data loader cannot start in the middle: its order starts anew")
            return
        self.data_loader.start_batch = self.start_iter
        order = extra.get("data_order")
        if order != self.data_loader.fingerprint:
            _logger.warning(
                "The data are not those of the run so far (%s, now %s): not an exact continuation",
                order,
                self.data_loader.fingerprint,
            )
