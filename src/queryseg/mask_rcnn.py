"""Mask R-CNN as a baseline: Detectron2's, with its class count where configs and tools look."""

from typing import Any

from detectron2.modeling import GeneralizedRCNN


class MaskRCNN(GeneralizedRCNN):
    """Detectron2's two-stage detector.

    Args:
        num_classes: K; the config's heads refer to it.
        **parts: what `GeneralizedRCNN` takes.
    """

    def __init__(self, *, num_classes: int, **parts: Any) -> None:
        super().__init__(**parts)
        self.num_classes = num_classes
