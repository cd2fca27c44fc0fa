"""Refined masks for any detector that finds boxes (section 3.3; Table 9, query-based)."""

from typing import Any

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from queryseg.data.object_masks import ObjectMasks
from queryseg.image_model import run_in_groups
from queryseg.mask_refinement.mask_head import QuadtreeMaskHead


class RefinedDetector(nn.Module):
    """A detector, and the quadtree mask head on the boxes that it finds.

    The detector keeps its own training; nothing of it is known here but its backbone's maps and,
    in evaluation, its instances. In training the mask head learns on ground-truth boxes that are
    moved and scaled at random, as far as a good detector is off: the paper does not say which boxes
    its query-based variant learns on.

    Args:
        detector: a model with Detectron2's contract and a `backbone` that gives maps by name.
        mask_head: its `in_features` are those of the backbone or of `pyramid`.
        num_classes: K.
        pyramid: makes the mask head's maps of the backbone's, if these are no pyramid.
        boxes_per_object: training boxes of each object.
        jitter: by how much of their sides the boxes are moved and scaled at most.
    """

    def __init__(
        self,
        *,
        detector: nn.Module,
        mask_head: QuadtreeMaskHead,
        num_classes: int,
        pyramid: nn.Module | None = None,
        boxes_per_object: int = 4,
        jitter: float = 0.1,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.pyramid = pyramid
        self.mask_head = mask_head
        self.num_classes = num_classes
        self.boxes_per_object = boxes_per_object
        self.jitter = jitter

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train on or segment a batch.

        Args:
            batched_inputs: what the detector takes; in training with `gt_masks`.

        Returns:
            In training the losses of both; in evaluation the detector's instances with refined
            `pred_masks` (n, height, width) bool. Images of different sizes are looked at one size
            after the other, as some detectors do themselves.
        """
        if self.training:
            features, losses = self.detect(batched_inputs)
            device = next(iter(features.values())).device
            boxes = [self.training_boxes(x["instances"].to(device)) for x in batched_inputs]
            return {**losses, **_renamed(self.mask_head(features, boxes), losses)}
        return run_in_groups(batched_inputs, lambda x: x["image"].shape, self.infer_together)

    def infer_together(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Refined instances of images of one size."""
        features, detected = self.detect(batched_inputs)
        return self.refine(features, detected, batched_inputs)

    def detect(self, batched_inputs: list[dict[str, Any]]) -> tuple[dict[str, Tensor], Any]:
        """Run the detector on images that its backbone sees together.

        Returns:
            The mask head's maps by name, and what the detector returns.
        """
        seen: list[Any] = []
        backbone = self.detector.backbone
        assert isinstance(backbone, nn.Module)
        handle = backbone.register_forward_hook(lambda *call: seen.append(call[2]))
        try:
            detected = self.detector(batched_inputs)
        finally:
            handle.remove()
        return seen[0] if self.pyramid is None else self.pyramid(seen[0]), detected

    def training_boxes(self, truth: Instances) -> Instances:
        """Moved and scaled boxes of an image, with their ground truth.

        Args:
            truth: `gt_boxes`, `gt_classes`, `gt_masks`.
        """
        count = len(truth)
        index = torch.arange(count, device=truth.gt_classes.device)
        index = index.repeat(self.boxes_per_object)
        boxes = truth.gt_boxes.tensor[index]
        sides = boxes[:, 2:] - boxes[:, :2]
        noise = 2 * torch.rand(2, len(boxes), 2, device=boxes.device) - 1
        centres = boxes[:, :2] + sides / 2 + self.jitter * noise[0] * sides
        sides = sides * (self.jitter * noise[1]).exp()
        moved = Boxes(torch.cat([centres - sides / 2, centres + sides / 2], 1))
        moved.clip(truth.image_size)
        masks = ObjectMasks.of(truth.gt_masks, truth.image_size)[index]
        image = Instances(truth.image_size, proposal_boxes=moved, gt_masks=masks)
        image.gt_classes = truth.gt_classes[index]
        return image[moved.nonempty()]

    def refine(
        self, features: Any, detected: list[dict[str, Any]], batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Give the detector's instances masks at their output size."""
        images = []
        for inputs, result in zip(batched_inputs, detected):
            found = result["instances"]
            height, width = inputs["image"].shape[-2:]
            scale = (width / found.image_size[1], height / found.image_size[0])
            boxes = Boxes(found.pred_boxes.tensor.float() * _corners(found, scale))
            boxes.clip((height, width))
            images.append(
                Instances((height, width), pred_boxes=boxes, pred_classes=found.pred_classes)
            )
        self.mask_head(features, images)
        for image, result in zip(images, detected):
            found = result["instances"]
            back = [out / own for out, own in zip(found.image_size[::-1], image.image_size[::-1])]
            boxes = Boxes(image.pred_boxes.tensor * _corners(found, (back[0], back[1])))
            masks = paste_masks_in_image(image.pred_masks[:, 0], boxes, found.image_size)
            found.pred_masks = masks
        return detected


def _corners(instances: Instances, scale: tuple[float, float]) -> Tensor:
    return torch.tensor([*scale, *scale], device=instances.pred_boxes.tensor.device)


def _renamed(losses: dict[str, Tensor], taken: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses whose name the detector has too get another one."""
    return {f"{n}_quadtree" if n in taken else n: loss for n, loss in losses.items()}
