"""What every model does with the images of a batch before and after its network."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor, nn


class ImageModel(nn.Module):
    """A model that takes Detectron2's dicts, one an image.

    Args:
        pixel_mean: mean of each channel, 0 to 255, in the order of the input.
        pixel_std: standard deviation of each channel.
        size_divisibility: images are padded at the right and bottom to multiples of this; with 0
            no further than to the largest of the batch.
        channels_last: how the padded images lie in memory. Convolutions are about a tenth faster
            with channels last, and pixels are ready as tokens.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = 0,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.size_divisibility = size_divisibility
        self.channels_last = channels_last
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.pixel_mean.device

    def preprocess(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        """Normalise the images and pad them to one size.

        The padding is zero after normalisation.

        Args:
            batched_inputs: "image" (3, h, w) uint8.
        """
        images = [
            (x["image"].to(self.device) - self.pixel_mean) / self.pixel_std for x in batched_inputs
        ]
        padded = ImageList.from_tensors(images, self.size_divisibility)
        if not self.channels_last:
            return padded
        tensor = padded.tensor.contiguous(memory_format=torch.channels_last)
        return ImageList(tensor, padded.image_sizes)

    def padded_size(self, inputs: dict[str, Any]) -> tuple[int, int]:
        """(height, width) that an image has when it is padded by itself."""
        height, width = inputs["image"].shape[-2:]
        step = max(self.size_divisibility, 1)
        return height + -height % step, width + -width % step


def output_size(inputs: dict[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels of an image's results: as its dict asks, or else its own."""
    return inputs.get("height", image_size[0]), inputs.get("width", image_size[1])


def run_in_groups(
    batched_inputs: Sequence[dict[str, Any]],
    key: Callable[[dict[str, Any]], Hashable],
    run: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Results in the order of the inputs, of which those with the same key run together.

    With the padded size for a key, what is found in an image does not depend on what it shares a
    batch with, though nothing masks the padding.

    Args:
        batched_inputs: one dict an image.
        key: by which the images are told apart.
        run: inputs to their results.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, inputs in enumerate(batched_inputs):
        groups.setdefault(key(inputs), []).append(index)
    results: dict[int, dict[str, Any]] = {}
    for indices in groups.values():
        results.update(zip(indices, run([batched_inputs[index] for index in indices])))
    return [results[index] for index in range(len(batched_inputs))]
