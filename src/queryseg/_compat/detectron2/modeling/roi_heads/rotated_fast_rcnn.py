"""Names of the heads for rotated boxes, which are outside the subset."""

from detectron2._subset import outside

__getattr__ = outside(__name__, "RROIHeads", "RotatedFastRCNNOutputLayers")
