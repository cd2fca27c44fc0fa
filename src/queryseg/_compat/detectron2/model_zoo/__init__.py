"""Names of the model zoo, which is part of the real Detectron2."""

from detectron2._subset import outside

__getattr__ = outside(
    __name__, "get", "get_checkpoint_url", "get_config", "get_config_file", "model_zoo"
)
