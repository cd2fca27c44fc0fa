"""Names of the export to TorchScript, which is part of the real Detectron2."""

from detectron2._subset import outside

__getattr__ = outside(__name__, "freeze_training_mode", "patch_instances")
