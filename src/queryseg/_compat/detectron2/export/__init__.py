"""Names of the export to other run times, which is part of the real Detectron2."""

from detectron2._subset import outside

__getattr__ = outside(
    __name__,
    "Caffe2Model",
    "Caffe2Tracer",
    "STABLE_ONNX_OPSET_VERSION",
    "TracingAdapter",
    "dump_torchscript_IR",
    "scripting_with_instances",
)
