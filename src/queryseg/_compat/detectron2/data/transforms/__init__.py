"""Deterministic transforms, and augmentations that draw them at random."""

from fvcore.transforms.transform import *  # noqa: F403

from detectron2._subset import outside

from .augmentation import *  # noqa: F403
from .augmentation_impl import *  # noqa: F403
from .transform import *  # noqa: F403

__getattr__ = outside(
    __name__,
    "MinIoURandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomLighting",
    "RandomResize",
    "RandomRotation",
)
