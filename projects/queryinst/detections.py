"""What is detected in one image, before masks are as large as the image."""

from dataclasses import dataclass

from detectron2.structures import Boxes, Instances
from torch import Tensor

from queryseg.postprocess import paste_masks
from queryseg.projects.queryinst.boxes import sides_of_images


@dataclass(frozen=True)
class Detections:
    """The best pairs of query and class of one image, by falling score.

    Args:
        scores: (D,) class probabilities.
        classes: (D,) int64.
        query_idx: (D,) int64; a query occurs with several classes where all score high.
        boxes_xyxy_abs: (D, 4) in pixels of the network's input, not clipped.
        mask_probs: (D, h, w) inside the boxes.
    """

    scores: Tensor
    classes: Tensor
    query_idx: Tensor
    boxes_xyxy_abs: Tensor
    mask_probs: Tensor

    def to_instances(
        self, image_size: tuple[int, int], output_size: tuple[int, int], *, clip_boxes: bool = False
    ) -> Instances:
        """Scale boxes to the output and paste the masks there.

        Args:
            image_size: (height, width) of the network's input without padding.
            output_size: (height, width) of the masks to return.
            clip_boxes: cut the boxes, after the masks were pasted, at the border of the image.
        """
        image_sides, output_sides = sides_of_images([image_size, output_size], self.boxes_xyxy_abs)
        boxes_xyxy_abs = self.boxes_xyxy_abs * (output_sides / image_sides)
        pred_boxes = Boxes(boxes_xyxy_abs)
        if clip_boxes:
            pred_boxes.clip(output_size)
        return Instances(
            output_size,
            pred_boxes=pred_boxes,
            scores=self.scores,
            pred_classes=self.classes,
            pred_masks=paste_masks(self.mask_probs, boxes_xyxy_abs, output_size),
            query_idx=self.query_idx,
        )
