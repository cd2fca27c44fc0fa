"""The names of the classes that a config is about."""

from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf

from queryseg.data.registration import ensure_registered


def dataset_class_names(cfg: DictConfig) -> list[str]:
    """Class names of the data set that a config evaluates on.

    Args:
        cfg: a config with `dataloader.test.dataset.names` and `model.num_classes`.

    Returns:
        One name per class; empty where the names are not known or not as many as the classes.
    """
    name = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    names = [name] if isinstance(name, str) else list(name or ())
    if not names:
        return []
    try:
        ensure_registered(names[0])
    except ValueError:
        return []
    known = MetadataCatalog.get(names[0]).get("thing_classes") or []
    return list(known) if len(known) == OmegaConf.select(cfg, "model.num_classes") else []
