"""What a module tells the next one about the tensors it hands over."""

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Channels, height, width and stride of a feature map; `None` where it is not known."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
