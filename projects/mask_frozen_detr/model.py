"""Mask Frozen-DETR: instance masks from a detector that stays as it is."""

from typing import Any, Literal

import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from queryseg.detectors import Detected
from queryseg.image_model import output_size
from queryseg.matching import Assignment, BoxMatcher, BoxTargets, MaskTargets
from queryseg.postprocess import mask_quality, top_classes
from queryseg.projects.mask_frozen_detr.criterion import MaskCriterion
from queryseg.projects.mask_frozen_detr.detected_batch import join_images
from queryseg.projects.mask_frozen_detr.detection_cache import DetectionCache
from queryseg.projects.mask_frozen_detr.detections import Detections
from queryseg.projects.mask_frozen_detr.mask_network import MaskNetwork, MaskPrediction
from queryseg.projects.mask_frozen_detr.regions import OutputSize

Finetune = Literal["none", "partial", "full"]


class MaskFrozenDETR(nn.Module):
    """A DETR-like detector and a light mask network on top of what it knows.

    The detector is frozen: in evaluation mode whatever `train()` says, without gradients, and left
    out of DDP. Fine-tuning adds its own losses.

    Args:
        detector: as `queryseg.detectors.Detector`; for fine-tuning also with `targets` and `learn`.
        mask_network: predicts masks.
        criterion: losses of the masks.
        matcher: assigns instances to the detector's final predictions.
        num_classes: K.
        num_boxes: (query, class) pairs of an image that masks are predicted for.
        max_detections: how many of them are returned, after the masks have changed their scores.
        finetune: "none", "partial" for `partial_parts` of the detector, or "full" (Table 11).
        partial_parts: names of its parts; those of encoder and decoder.
        detect_singly: let the detector see each image of a batch alone, unpadded, as in evaluation.
        cache: keeps on disk what the detector says in training; None to ask it every time. It works
            singly, since what is said of an image must not depend on the rest of a batch, and is
            exactly equal to `detect_singly` without a cache.

    Raises:
        ValueError: an unknown `finetune`, or a cache for a detector that changes.
    """

    def __init__(
        self,
        *,
        detector: nn.Module,
        mask_network: MaskNetwork,
        criterion: MaskCriterion,
        matcher: BoxMatcher,
        num_classes: int,
        num_boxes: int = 100,
        max_detections: int = 100,
        finetune: Finetune = "none",
        partial_parts: tuple[str, ...] = (
            "tokens",
            "encoder",
            "proposals",
            "queries",
            "decoder",
            "class_heads",
        ),
        detect_singly: bool = False,
        cache: DetectionCache | None = None,
    ) -> None:
        super().__init__()
        if finetune not in ("none", "partial", "full"):
            raise ValueError(f"finetune is {finetune!r}; expected 'none', 'partial' or 'full'")
        if cache is not None and finetune != "none":
            raise ValueError("what a detector says can be kept only if it does not change")
        self.detector = detector
        self.mask_network = mask_network
        self.criterion = criterion
        self.matcher = matcher
        self.num_classes = num_classes
        self.num_boxes = num_boxes
        self.max_detections = max_detections
        self.finetune = finetune
        self.partial_parts = tuple(partial_parts)
        self.detect_singly = detect_singly
        self.cache = cache
        self._freeze()

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train the mask network on a batch, or segment it.

        Args:
            batched_inputs: one dict an image: "image" (3, h, w) uint8; in training "instances"
                with `gt_classes`, `gt_boxes` and `gt_masks` (bit masks); in evaluation "height" and
                "width" of the output, by default those of the image.

        Returns:
            In training the weighted losses by name; in evaluation one dict an image: "instances"
            by falling score, with `pred_boxes`, `scores`, `pred_classes`, bool `pred_masks` and
            `query_idx`.
        """
        images = self.detector.preprocess(batched_inputs)
        losses, detected = self.detect(images, batched_inputs)
        features = self.mask_network.features(detected)
        if not self.training:
            return self.segment(features, detected, images, batched_inputs)
        targets = self.targets(batched_inputs, images)
        matched = self.match(detected, batched_inputs)
        detections = Detections.pick(detected, matched.image_idx, matched.src_idx)
        prediction = self.mask_network(features, detections)
        return losses | self.criterion(prediction, detections, matched.tgt_idx, targets)

    def train(self, mode: bool = True) -> "MaskFrozenDETR":
        """Set the mode of everything that is not frozen."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def detect(
        self, images: ImageList, batched_inputs: list[dict[str, Any]]
    ) -> tuple[dict[str, Tensor], Detected]:
        """What the detector says, and its losses if it is trained."""
        layer = self.mask_network.encoder_layer
        if self.training and self.finetune != "none":
            losses, detected = self.detector.learn(images, self.detector.targets(batched_inputs))
            return losses, detected.with_layer(layer)
        with torch.no_grad():
            if self.detect_singly or (self.cache is not None and self.training):
                return {}, join_images([self._detect_one(x) for x in batched_inputs])
            return {}, self.detector.detect(images).with_layer(layer)

    @torch.no_grad()
    def match(self, detected: Detected, batched_inputs: list[dict[str, Any]]) -> Assignment:
        """Which query stands for which instance, by class and box."""
        probs = detected.probs_of_classes(self.num_classes).float()
        instances = [x["instances"] for x in batched_inputs]
        targets = BoxTargets.from_instances(instances, probs.device)
        predictions = [(torch.logit(probs, eps=1e-6), detected.boxes_cxcywh_norm.float())]
        return self.matcher(predictions, targets)[0]

    def targets(self, batched_inputs: list[dict[str, Any]], images: ImageList) -> MaskTargets:
        """Ground truth of the batch on the padded images."""
        instances = [x["instances"].to(images.tensor.device) for x in batched_inputs]
        return MaskTargets.from_images(
            labels=[x.gt_classes for x in instances],
            masks=[x.gt_masks.tensor for x in instances],
            padded_size=tuple(images.tensor.shape[-2:]),
        )

    def segment(
        self,
        features: Tensor,
        detected: Detected,
        images: ImageList,
        batched_inputs: list[dict[str, Any]],
    ) -> list[dict[str, Instances]]:
        """Instances of each image at its output size."""
        classes = detected.column_classes()
        results = []
        for index, (inputs, image_size) in enumerate(zip(batched_inputs, detected.image_sizes)):
            scores, columns, query_idx = top_classes(
                detected.class_probs[index].float(), self.num_boxes
            )
            real = classes[columns] >= 0
            queries, place = query_idx[real].unique(return_inverse=True)
            detections = Detections.pick(detected, torch.full_like(queries, index), queries)
            instances = self.instances_of_image(
                self.mask_network(features, detections),
                detections,
                scores=scores[real],
                classes=classes[columns][real],
                place=place,
                size=OutputSize(
                    padded=tuple(images.tensor.shape[-2:]),
                    image=tuple(image_size),
                    output=output_size(inputs, image_size),
                ),
            )
            results.append({"instances": instances})
        return results

    def instances_of_image(
        self,
        prediction: MaskPrediction,
        detections: Detections,
        *,
        scores: Tensor,
        classes: Tensor,
        place: Tensor,
        size: OutputSize,
    ) -> Instances:
        """Score, select and paste the masks of one image.

        Args:
            prediction: masks of N queries.
            detections: these.
            scores: (n,) of (query, class) pairs, several of which may share a query.
            classes: (n,) int64.
            place: (n,) int64, the row of the query of each pair.
            size: of the masks to return.
        """
        scores = scores * self._quality(prediction, place, classes)
        scores, order = scores.sort(descending=True, stable=True)
        scores, order = scores[: self.max_detections], order[: self.max_detections]
        kept, row = place[order].unique(return_inverse=True)
        boxes = detections.boxes_xyxy_abs[kept].float()
        masks = self.mask_network.regions.paste(prediction.mask_logits[kept], boxes, size)
        (height, width), (out_height, out_width) = size.image, size.output
        boxes = boxes * boxes.new_tensor([out_width / width, out_height / height] * 2)
        return Instances(
            size.output,
            pred_boxes=Boxes(boxes[row]),
            scores=scores,
            pred_classes=classes[order],
            pred_masks=masks.bool()[row],
            query_idx=detections.query_idx[kept][row],
        )

    def _quality(self, prediction: MaskPrediction, place: Tensor, classes: Tensor) -> Tensor:
        """(n,) in [0, 1], what class scores are multiplied by (equations 2 and 13)."""
        if prediction.ious is not None:
            return prediction.ious.float()[place, classes].clamp(0, 1)
        logits = prediction.mask_logits.float()
        return mask_quality(logits, logits > 0)[place].clamp(max=1)

    def _detect_one(self, inputs: dict[str, Any]) -> Detected:
        layer = self.mask_network.encoder_layer

        def ask() -> Detected:
            return self.detector.detect(self.detector.preprocess([inputs])).with_layer(layer)

        if self.cache is None or not self.training:
            return ask()
        return self.cache.get(inputs["image"], self.detector, ask)

    def _frozen_parts(self) -> list[nn.Module]:
        if self.finetune == "full":
            return []
        if self.finetune == "none":
            return [self.detector]
        return [x for name, x in self.detector.named_children() if name not in self.partial_parts]

    def _freeze(self) -> None:
        frozen = {id(p) for part in self._frozen_parts() for p in part.parameters()}
        for parameter in self.detector.parameters():
            if id(parameter) in frozen:
                parameter.requires_grad_(False)
        names = [*self.named_parameters()]
        ignored = [name for name, parameter in names if id(parameter) in frozen]
        if self.finetune == "none":
            ignored += [f"detector.{name}" for name, _ in self.detector.named_buffers()]
        # What DDP neither broadcasts nor waits for.
        self._ddp_params_and_buffers_to_ignore = ignored
