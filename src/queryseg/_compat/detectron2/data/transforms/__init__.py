"""Deterministic transforms, and augmentations that draw them at random."""

from fvcore.transforms.transform import (
    BlendTransform,
    CropTransform,
    GridSampleTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    ScaleTransform,
    Transform,
    TransformList,
    VFlipTransform,
)

from detectron2._subset import outside

from .augmentation import (
    AugInput,
    Augmentation,
    AugmentationList,
    StandardAugInput,
    TransformGen,
    apply_augmentations,
    apply_transform_gens,
)
from .augmentation_impl import (
    FixedSizeCrop,
    RandomApply,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomExtent,
    RandomFlip,
    RandomRotation,
    RandomSaturation,
    Resize,
    ResizeScale,
    ResizeShortestEdge,
)
from .transform import (
    ColorTransform,
    ExtentTransform,
    PILColorTransform,
    ResizeTransform,
    RotationTransform,
)

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "BlendTransform",
    "ColorTransform",
    "CropTransform",
    "ExtentTransform",
    "FixedSizeCrop",
    "GridSampleTransform",
    "HFlipTransform",
    "NoOpTransform",
    "PILColorTransform",
    "PadTransform",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomExtent",
    "RandomFlip",
    "RandomRotation",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
    "ResizeTransform",
    "RotationTransform",
    "ScaleTransform",
    "StandardAugInput",
    "Transform",
    "TransformGen",
    "TransformList",
    "VFlipTransform",
    "apply_augmentations",
    "apply_transform_gens",
]

__getattr__ = outside(
    __name__,
    "MinIoURandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomLighting",
    "RandomResize",
)
