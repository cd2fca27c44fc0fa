"""What is known about the objects of one image, field by field."""

from collections.abc import Sequence
from typing import Any

import torch


class Instances:
    """Named fields of equal length (boxes, masks, classes, scores...) of the objects in an image.

    A field is set and read as an attribute (`instances.gt_boxes = Boxes(...)`); indexing selects
    the same objects in every field. Attributes that start with an underscore are private.

    Args:
        image_size: (height, width) of the image.
        **kwargs: fields to start with.
    """

    _image_size: tuple[int, int]
    _fields: dict[str, Any]

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        self._image_size = image_size
        self._fields = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # Asked only for what is no regular attribute; unpickling asks before `_fields` exists.
        if name != "_fields" and name in self._fields:
            return self._fields[name]
        raise AttributeError(f"these Instances have no field '{name}'")

    def set(self, name: str, value: Any) -> None:
        """Set a field; its length has to be that of the other fields."""
        if self._fields:
            assert len(value) == len(self), (
                f"field '{name}' of length {len(value)} for Instances of length {len(self)}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def remove(self, name: str) -> None:
        del self._fields[name]

    def get(self, name: str) -> Any:
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """The dict that holds the fields: changing it changes this object."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> "Instances":
        """A new object in which every field that has `.to` was moved or cast."""
        moved = Instances(self._image_size)
        for name, value in self._fields.items():
            moved.set(name, value.to(*args, **kwargs) if hasattr(value, "to") else value)
        return moved

    def __getitem__(self, item: int | slice | torch.Tensor) -> "Instances":
        """Select objects in every field; one integer gives an `Instances` of length 1.

        Raises:
            IndexError: an integer out of range.
        """
        if type(item) is int:
            if not -len(self) <= item < len(self):
                raise IndexError(f"index {item} for Instances of length {len(self)}")
            item = slice(item, None, len(self))
        chosen = Instances(self._image_size)
        for name, value in self._fields.items():
            chosen.set(name, value[item])
        return chosen

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without any field have no length: set a field first.")

    def __iter__(self) -> None:
        raise NotImplementedError("Instances cannot be iterated: index them, or use one field.")

    @staticmethod
    def cat(instance_lists: Sequence["Instances"]) -> "Instances":
        """Join instances of the same image; the first one says which fields the result has.

        Raises:
            ValueError: a field is no tensor, no list and has no `cat` of its own.
        """
        assert len(instance_lists) > 0
        assert all(isinstance(instances, Instances) for instances in instance_lists)
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        for other in instance_lists[1:]:
            assert other.image_size == first.image_size, "instances of images of different size"
        joined = Instances(first.image_size)
        for name in first.get_fields():
            joined.set(name, _join([instances.get(name) for instances in instance_lists]))
        return joined

    def __repr__(self) -> str:
        height, width = self._image_size
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        return (
            f"Instances(num_instances={len(self)}, image_height={height}, image_width={width}, "
            f"fields=[{fields}])"
        )


def _join(values: list[Any]) -> Any:
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values, dim=0)
    if isinstance(values[0], list):
        return [element for value in values for element in value]
    if hasattr(type(values[0]), "cat"):
        return type(values[0]).cat(values)
    raise ValueError(f"Fields of type {type(values[0])} cannot be joined: give the type a `cat`.")
