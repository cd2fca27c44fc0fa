"""How an augmentation is applied: it looks at its input, draws a transform and applies it."""

import inspect
import pprint
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "StandardAugInput",
    "TransformGen",
    "apply_augmentations",
    "apply_transform_gens",
]

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Augmentation:
    """A policy that draws a deterministic transform for each input.

    A subclass writes `get_transform`; the names of its arguments say which attributes of the input
    it wants to see ("image", "boxes", "sem_seg", or what a user's own input has). A single
    argument gets the image, whatever its name.

    Attributes:
        input_args: the names of the attributes, found from `get_transform` when first needed.
    """

    input_args: tuple[str, ...] | None = None

    def _init(self, params: Mapping[str, Any] | None = None) -> None:
        """Keep constructor arguments (`self._init(locals())`) as attributes."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def get_transform(self, *args: Any) -> Transform:
        """Draw the transform for this input."""
        raise NotImplementedError(f"{type(self)} has to say which transform it draws.")

    def __call__(self, aug_input: Any) -> Transform:
        """Draw a transform, apply it to the input in place and return it."""
        transform = self.get_transform(*self._get_args(aug_input))
        assert isinstance(transform, Transform), (
            f"{type(self)}.get_transform must return a Transform, not {type(transform)}"
        )
        aug_input.transform(transform)
        return transform

    def _get_args(self, aug_input: Any) -> list[Any]:
        if self.input_args is None:
            self.input_args = _names_of_args(type(self), self.get_transform)
        for name in self.input_args:
            if not hasattr(aug_input, name):
                raise AttributeError(
                    f"{type(self)} looks at '{name}', which {type(aug_input)} does not have"
                )
        return [getattr(aug_input, name) for name in self.input_args]

    def _rand_range(
        self, low: float = 1.0, high: float | None = None, size: Sequence[int] | None = None
    ) -> np.ndarray:
        """Uniform numbers in [low, high), or in [0, low) if only one bound is given."""
        if high is None:
            low, high = 0, low
        return np.random.uniform(low, high, [] if size is None else size)

    def __repr__(self) -> str:
        """The constructor call, without arguments that were left at their default."""
        shown = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if parameter.kind in _VARIADIC or not hasattr(self, name):
                return super().__repr__()
            value = getattr(self, name)
            if value is not parameter.default:
                text = pprint.pformat(value)
                shown.append(f"{name}={text if len(text.splitlines()) == 1 else '...'}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _names_of_args(owner: type, get_transform: Any) -> tuple[str, ...]:
    parameters = inspect.signature(get_transform).parameters
    if len(parameters) == 1:
        return ("image",)
    if any(parameter.kind in _VARIADIC for parameter in parameters.values()):
        raise TypeError(
            f"{owner}.get_transform takes *args or **kwargs, so its inputs cannot be told from "
            "their names: name them, or write your own __call__."
        )
    return tuple(parameters)


class _FixedTransform(Augmentation):
    """A transform in the place of an augmentation."""

    def __init__(self, tfm: Transform) -> None:
        self.tfm = tfm

    def get_transform(self, *args: Any) -> Transform:
        return self.tfm

    def __call__(self, aug_input: Any) -> Transform:
        aug_input.transform(self.tfm)
        return self.tfm

    def __repr__(self) -> str:
        return repr(self.tfm)


def _transform_to_aug(tfm_or_aug: Transform | Augmentation) -> Augmentation:
    """An augmentation as it is; a transform as an augmentation that always gives it."""
    assert isinstance(tfm_or_aug, Transform | Augmentation), tfm_or_aug
    return tfm_or_aug if isinstance(tfm_or_aug, Augmentation) else _FixedTransform(tfm_or_aug)


class AugmentationList(Augmentation):
    """Augmentations one after the other, each looking at what the one before has left.

    Args:
        augs: augmentations or transforms.
    """

    def __init__(self, augs: Sequence[Augmentation | Transform]) -> None:
        self.augs = [_transform_to_aug(aug) for aug in augs]

    def __call__(self, aug_input: Any) -> TransformList:
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(str(aug) for aug in self.augs)}]"


class AugInput:
    """An image, and what has to be transformed along with it.

    Any other object with the attributes that the augmentations ask for, and a method `transform`,
    can take its place.

    Args:
        image: (H, W) or (H, W, C), uint8 in [0, 255] or floating point.
        boxes: (N, 4), x0, y0, x1, y1 in pixels.
        sem_seg: (H, W), an integer label for each pixel.
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
    ) -> None:
        assert isinstance(image, np.ndarray), f"an image has to be an array, not {type(image)}"
        assert image.ndim in (2, 3), f"an image has 2 or 3 dimensions, not {image.ndim}"
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Replace each attribute by the transformed one."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(
        self, augmentations: Sequence[Augmentation | Transform]
    ) -> TransformList:
        """Apply them in order and return the transforms they drew."""
        return AugmentationList(augmentations)(self)


def apply_augmentations(
    augmentations: Sequence[Augmentation | Transform], inputs: np.ndarray | AugInput
) -> tuple[np.ndarray | AugInput, TransformList]:
    """Apply augmentations to an image or an `AugInput`; return it and the transforms they drew."""
    if isinstance(inputs, np.ndarray):
        image_only = AugInput(inputs)
        transforms = image_only.apply_augmentations(augmentations)
        return image_only.image, transforms
    return inputs, inputs.apply_augmentations(augmentations)


# The names these had in older releases; add-ons still use them.
apply_transform_gens = apply_augmentations
TransformGen = Augmentation
StandardAugInput = AugInput
