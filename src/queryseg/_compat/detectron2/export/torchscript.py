"""Names of the export to TorchScript, which is part of the real Detectron2."""

from detectron2._subset import outside

__getattr__ = outside(
    __name__, "dump_torchscript_IR", "patch_instances", "scripting_with_instances"
)
