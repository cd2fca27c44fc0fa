"""Names of PointRend, which is part of the real Detectron2."""

from detectron2._subset import outside

__getattr__ = outside(__name__, "ColorAugSSDTransform", "add_pointrend_config")
