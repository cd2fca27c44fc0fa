"""The feature pyramid as the release starts it."""

from typing import Any

from detectron2.modeling.backbone import FPN
from torch import nn


class XavierFPN(FPN):
    """Detectron2's pyramid with mmdetection's first weights: Xavier-uniform, biases zero.

    Detectron2 draws them by the input channels alone, those of the coarsest lateral convolution of
    a ResNet-50 a quarter smaller.

    Args:
        options: those of `FPN`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for conv in (*self.lateral_convs, *self.output_convs):
            nn.init.xavier_uniform_(conv.weight)
