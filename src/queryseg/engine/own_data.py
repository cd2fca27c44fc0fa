"""Pointing a config at the user's own data: images in COCO format, videos in YouTube-VIS format."""

import logging
from collections.abc import Iterator
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from queryseg.data.known_datasets import Kind
from queryseg.data.registration import OwnData
from queryseg.engine.config import ConfigError

_logger = logging.getLogger("queryseg")


def kind_of_data(cfg: DictConfig) -> Kind:
    """What a config trains on: the `data_kind` of its evaluator, by default images."""
    target = OmegaConf.select(cfg, "dataloader.evaluator._target_")
    evaluator = locate(target) if isinstance(target, str) else target
    return getattr(evaluator, "data_kind", Kind.COCO)


def use_own_data(cfg: DictConfig, data: OwnData) -> DictConfig:
    """Train, test and evaluate on registered own data, with its number of classes, in place.

    Args:
        cfg: the config tree; the class count stands in `model.num_classes`, and everything else
            refers to it.
        data: what `queryseg.data.registration.register_own_data` returned.

    Returns:
        `cfg`.

    Raises:
        ConfigError: the config lacks one of the keys to set, or has a second class count that does
            not follow the first.
    """
    new_values = {
        "dataloader.train.dataset.names": data.train_name,
        "dataloader.test.dataset.names": data.val_name,
        "dataloader.evaluator.dataset_name": data.val_name,
        "model.num_classes": len(data.class_names),
    }
    for key, value in new_values.items():
        if OmegaConf.select(cfg, key) is None:
            raise ConfigError(f"own data need '{key}', which this config does not have")
        OmegaConf.update(cfg, key, value)
    for key, value in _class_counts(cfg, ""):
        if value != len(data.class_names):
            raise ConfigError(
                f"'{key}' is {value} but the data have {len(data.class_names)} classes: write it "
                "as an interpolation of model.num_classes in the config"
            )
    _logger.info("%d classes: %s", len(data.class_names), ", ".join(data.class_names))
    return cfg


def _class_counts(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if not OmegaConf.is_config(node):
        return
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        name = f"{prefix}.{key}" if prefix else str(key)
        if key == "num_classes":
            yield name, node[key]
        elif not OmegaConf.is_interpolation(node, key):
            yield from _class_counts(node[key], name)
