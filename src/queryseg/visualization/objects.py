"""What a picture shows: masks with classes, from predictions or from annotations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import Instances

from queryseg.data.masks import decode


@dataclass(frozen=True)
class DrawnObjects:
    """Objects of one image.

    Attributes:
        masks: (N, H, W) bool.
        classes: (N,) int64.
        scores: (N,) in [0, 1], or None for ground truth.
        track_ids: (N,) which object of a video each is, or None for single images.
    """

    masks: np.ndarray
    classes: np.ndarray
    scores: np.ndarray | None = None
    track_ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def from_predictions(cls, instances: Instances) -> "DrawnObjects":
        """Predictions as models give them; boxes stand in where there are no masks."""
        if instances.has("pred_masks"):
            masks = np.asarray(instances.pred_masks.cpu(), dtype=bool)
        else:
            masks = _filled_boxes(instances.pred_boxes.tensor.cpu().numpy(), instances.image_size)
        classes, scores = instances.pred_classes.cpu().numpy(), instances.scores.cpu().numpy()
        if not instances.has("pred_track_ids"):
            return cls(masks, classes, scores)
        return cls(masks, classes, scores, instances.pred_track_ids.cpu().numpy())

    @classmethod
    def from_annotations(
        cls, dataset_dict: Mapping[str, Any], image_size: tuple[int, int]
    ) -> "DrawnObjects":
        """The annotations of a standard dataset dict, crowds left out.

        Args:
            dataset_dict: with `annotations`.
            image_size: (height, width) of the image.
        """
        objects = [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]
        masks = np.zeros((len(objects), *image_size), dtype=bool)
        for index, annotation in enumerate(objects):
            masks[index] = decode(annotation["segmentation"], *image_size)
        return cls(masks, np.array([a["category_id"] for a in objects], dtype=np.int64))


def _filled_boxes(boxes_xyxy_abs: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    masks = np.zeros((len(boxes_xyxy_abs), *image_size), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes_xyxy_abs.round().astype(int)):
        mask[max(y0, 0) : y1, max(x0, 0) : x1] = True
    return masks
