"""What a DETR-like detector shows of itself, so that other methods can build on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from detectron2.structures import ImageList
from torch import Tensor

from queryseg.deformable_detr.pyramid import SpatialShapes


@dataclass(frozen=True)
class Detected:
    """What a detector found in a batch, and what it knows about the images.

    Boxes count in the image without its padding. Everything that a detector does not have (padding,
    gaps between its classes) is None.

    Args:
        stage1: (B, C1, h, w) first map of the backbone, at stride 4 of the padded batch.
        encoder_layers: number of an encoder layer, counted from one, -> its output (B, S, C).
        spatial_shapes: (H, W) of each level of the encoder, finest first.
        position: (B, S, C) positional and level embeddings of the encoder's tokens.
        query_feats: (B, Q, C) features of the queries after the last decoder layer.
        boxes_cxcywh_norm: (B, Q, 4).
        class_probs: (B, Q, K'), each in [0, 1].
        image_sizes: (height, width) of each image in the padded batch.
        padding_mask: (B, S) bool, True on padding.
        valid_ratios: (B, L, 2) share of width and height that is no padding.
        class_ids: (K',) int64, the class that each column of `class_probs` stands for, -1 where
            it stands for none; by default column k is class k.
    """

    stage1: Tensor
    encoder_layers: Mapping[int, Tensor]
    spatial_shapes: SpatialShapes
    position: Tensor
    query_feats: Tensor
    boxes_cxcywh_norm: Tensor
    class_probs: Tensor
    image_sizes: Sequence[tuple[int, int]]
    padding_mask: Tensor | None = None
    valid_ratios: Tensor | None = None
    class_ids: Tensor | None = None

    @property
    def boxes_xyxy_abs(self) -> Tensor:
        """(B, Q, 4) in pixels of the padded batch, clipped to the images."""
        sizes = self.boxes_cxcywh_norm.new_tensor([(w, h, w, h) for h, w in self.image_sizes])
        centres, extents = self.boxes_cxcywh_norm.split(2, dim=-1)
        corners = torch.cat((centres - extents / 2, centres + extents / 2), dim=-1)
        return corners.clamp(0, 1) * sizes[:, None]

    def column_classes(self) -> Tensor:
        """(K',) `class_ids`, also where a detector leaves them out."""
        if self.class_ids is not None:
            return self.class_ids
        return torch.arange(self.class_probs.shape[-1], device=self.class_probs.device)

    def probs_of_classes(self, num_classes: int) -> Tensor:
        """(B, Q, K) probabilities with class k in column k."""
        if self.class_ids is None:
            return self.class_probs[..., :num_classes]
        columns = self.class_ids.new_zeros(num_classes)
        used = (self.class_ids >= 0).nonzero()[:, 0]
        columns[self.class_ids[used]] = used
        return self.class_probs[..., columns]

    def with_layer(self, number: int) -> "Detected":
        """The same with one encoder layer, so that the others need not be kept.

        Raises:
            ValueError: the detector does not have that layer.
        """
        if number not in self.encoder_layers:
            raise ValueError(
                f"encoder layer {number} is asked for, and the detector has "
                f"{', '.join(map(str, self.encoder_layers))}"
            )
        return replace(self, encoder_layers={number: self.encoder_layers[number]})


class Detector(Protocol):
    """A Detectron2 model, trained to detect, that other methods can look into.

    To satisfy it takes an `nn.Module` with these two methods besides `forward`. Example: the plain
    DETR in `tests/detectors/plain_detr.py`.
    """

    def preprocess(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise and pad the images of a batch."""
        ...

    def detect(self, images: ImageList) -> Detected:
        """Find the objects of a batch, in the mode the module is in."""
        ...
