"""Batch size, learning rate and length of a recipe, changed together or checked."""

import logging

from omegaconf import DictConfig

from queryseg.engine.config import ConfigError

_logger = logging.getLogger("queryseg")


def scale_schedule(cfg: DictConfig, batch: int) -> DictConfig:
    """Adapt a recipe to another total batch size, in place, so that it sees as many images.

    With r = batch / recipe batch: the learning rate is multiplied by r (linear rule, Goyal et al.
    2017, section 2.1), and the number of iterations and the periods of evaluation and checkpoints
    are divided by r. Warm-up and decay steps are fractions of the training and scale with it.

    Args:
        cfg: the config tree; `train.total_batch_size` is the batch the recipe is written for.
        batch: total images per step from now on, over all processes and accumulated parts.

    Returns:
        `cfg`.

    Raises:
        ConfigError: a batch below 1.
    """
    if batch < 1:
        raise ConfigError(f"the batch size must be at least 1: got {batch}")
    ratio = batch / cfg.train.total_batch_size
    cfg.train.total_batch_size = batch
    if "total_batch_size" in cfg.get("dataloader", {}).get("train", {}):
        cfg.dataloader.train.total_batch_size = "${train.total_batch_size}"
    cfg.optimizer.lr = cfg.optimizer.lr * ratio
    cfg.train.max_iter = _divided(cfg.train.max_iter, ratio)
    cfg.train.eval_period = _divided(cfg.train.eval_period, ratio)
    cfg.train.checkpointer.period = _divided(cfg.train.checkpointer.period, ratio)
    return cfg


def warn_about_batch(recipe: int, actual: int) -> None:
    """Say so if a training uses another batch size than its recipe."""
    if actual != recipe:
        _logger.warning(
            "The recipe is written for batches of %d images and this run uses %d, with the "
            "recipe's learning rate and iterations: the result will differ. Rescale all three "
            "together with --batch-size %d.",
            recipe,
            actual,
            actual,
        )


def _divided(iterations: int, ratio: float) -> int:
    """0 stays 0: it stands for never."""
    return max(1, round(iterations / ratio)) if iterations > 0 else iterations
