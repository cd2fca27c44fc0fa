"""The two golden images of SOIT, and arrays that are described by a seed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from torch import Tensor

from queryseg.parity import noise_image
from queryseg.projects.soit.model import SOIT

CANVAS = (192, 256)


@dataclass(frozen=True)
class GoldenImage:
    """One of the two images.

    Args:
        image_size: height and width of the image on the canvas.
        output_size: height and width of its masks.
        gt_seed: of its ground truth.
        gt_count: instances of its ground truth.
    """

    image_size: tuple[int, int]
    output_size: tuple[int, int]
    gt_seed: int
    gt_count: int

    @property
    def image(self) -> Tensor:
        """(3, h, w) uint8, RGB."""
        height, width = self.image_size
        return noise_image(*CANVAS).flip(0)[:, :height, :width]

    def on_canvas(self, model: SOIT) -> ImageList:
        """The normalised image, padded to the canvas."""
        images = model.preprocess([{"image": self.image}])
        height, width = self.image_size
        padding = (0, CANVAS[1] - width, 0, CANVAS[0] - height)
        return ImageList(F.pad(images.tensor, padding), [self.image_size])

    def instances(self) -> Instances:
        """Ground truth: ellipses and the boxes around them."""
        height, width = self.image_size
        generator, n = np.random.RandomState(self.gt_seed), self.gt_count
        x = generator.rand(n) * width * 0.6
        y = generator.rand(n) * height * 0.6
        wide = 12 + generator.rand(n) * (width * 0.4 - 12)
        tall = 12 + generator.rand(n) * (height * 0.4 - 12)
        labels = generator.randint(0, 80, n)
        boxes = np.stack((x, y, x + wide, y + tall), axis=1).astype(np.float32)
        columns, rows = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
        masks = [
            ((columns - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2
            + ((rows - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2
            <= 1
            for x0, y0, x1, y1 in boxes.astype(np.float64)
        ]
        return Instances(
            self.image_size,
            gt_boxes=Boxes(torch.as_tensor(boxes)),
            gt_classes=torch.as_tensor(labels),
            gt_masks=BitMasks(torch.as_tensor(np.stack(masks))),
        )

    def training_input(self) -> dict[str, Any]:
        """What the model takes in training."""
        height, width = self.image_size
        return {
            "image": self.image,
            "height": height,
            "width": width,
            "instances": self.instances(),
        }


IMAGES = {
    "A": GoldenImage((192, 256), (192, 256), gt_seed=21, gt_count=4),
    "B": GoldenImage((172, 230), (258, 345), gt_seed=22, gt_count=3),
}


def seeded(seed: int, *shape: int, kind: str = "randn") -> Tensor:
    """Float32 numbers of `numpy.random.RandomState(seed)`, `randn` or `rand`."""
    values = getattr(np.random.RandomState(seed), kind)(*shape)
    return torch.as_tensor(values.astype(np.float32))
