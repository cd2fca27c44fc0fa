"""QueryInst: instances as queries (Fang et al., ICCV 2021)."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from queryseg.image_model import ImageModel, output_size, run_in_groups
from queryseg.matching import Assignment
from queryseg.postprocess import top_classes
from queryseg.projects.queryinst.criterion import QueryInstCriterion
from queryseg.projects.queryinst.decoder import QueryInstDecoder
from queryseg.projects.queryinst.detections import Detections
from queryseg.projects.queryinst.mask_branch import MaskBranch
from queryseg.projects.queryinst.stage import StagePrediction
from queryseg.projects.queryinst.targets import InstanceTargets

Features = Sequence[Tensor]


class QueryInst(ImageModel):
    """Backbone, query stages that detect, and a mask head beside each stage.

    Args:
        backbone: image (B, 3, H, W) to a dict of pyramid levels, finest first.
        decoder: detects with a fixed set of queries in several stages.
        mask_branch: the mask heads.
        criterion: matching and losses.
        num_classes: K.
        pixel_mean: mean of each channel, 0 to 255, in the order of the input.
        pixel_std: standard deviation of each channel.
        size_divisibility: images are padded at the right and bottom to multiples of this.
        max_detections: instances per image.
        clip_boxes: cut the returned boxes at the border of the image. Masks are pasted before. The
            release returns boxes as they were predicted.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        decoder: QueryInstDecoder,
        mask_branch: MaskBranch,
        criterion: QueryInstCriterion,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = 32,
        max_detections: int = 100,
        clip_boxes: bool = False,
    ) -> None:
        super().__init__(
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            size_divisibility=size_divisibility,
            channels_last=True,
        )
        self.backbone = backbone
        self.decoder = decoder
        self.mask_branch = mask_branch
        self.criterion = criterion
        self.num_classes = num_classes
        self.max_detections = max_detections
        self.clip_boxes = clip_boxes

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Train on or segment a batch.

        Args:
            batched_inputs: one dict an image: "image" (3, h, w) uint8; in training "instances"
                with `gt_boxes`, `gt_classes` and `gt_masks` (bit masks); in evaluation "height" and
                "width" of the output, by default those of the image.

        Returns:
            In training the weighted losses by name; in evaluation one dict an image: "instances"
            by falling score, with `pred_boxes` (they may leave the image), `scores`,
            `pred_classes`, bool `pred_masks` and `query_idx`.
        """
        if not self.training:
            return self.infer(batched_inputs)
        images = self.preprocess(batched_inputs)
        features = self.features(images)
        predictions = self.decoder(features, images.image_sizes)
        targets = self.targets(batched_inputs)
        matched = self.criterion.match(predictions, targets)
        mask_logits = self.matched_masks(features, predictions, matched, targets)
        return self.criterion(predictions, mask_logits, matched, targets)

    def features(self, images: ImageList) -> list[Tensor]:
        """Levels of the pyramid, finest first, channels last in memory as the heads read them."""
        pyramid = self.backbone(images.tensor).values()
        return [level.contiguous(memory_format=torch.channels_last) for level in pyramid]

    def targets(self, batched_inputs: list[dict[str, Any]]) -> InstanceTargets:
        """Ground truth of the batch."""
        instances = [x["instances"] for x in batched_inputs]
        return InstanceTargets.with_masks(instances, self.device, self.size_divisibility)

    def matched_masks(
        self,
        features: Features,
        predictions: Sequence[StagePrediction],
        matched: Sequence[Assignment],
        targets: InstanceTargets,
    ) -> dict[int, Tensor]:
        """Mask logits of the matched queries of every stage that has a mask head.

        The boxes of all stages are pooled together: the gradient of the pyramid is then summed in
        one pass over it.

        Returns:
            stage -> (P, h, w) for the class of the matched instance.
        """
        stages = self.mask_branch.trained_stages
        slots = {stage: (matched[stage].image_idx, matched[stage].src_idx) for stage in stages}
        box_feats = self.mask_branch.box_features(
            features,
            torch.cat([predictions[stage].boxes_xyxy_abs[slots[stage]] for stage in stages]),
            torch.cat([matched[stage].image_idx for stage in stages]),
        ).split([len(matched[stage].image_idx) for stage in stages])
        return {
            stage: self.mask_branch(
                stage,
                of_stage,
                [x.mask_queries[slots[stage]] for x in predictions[: stage + 1]],
                targets.labels[matched[stage].tgt_idx],
            )
            for stage, of_stage in zip(stages, box_feats)
        }

    def infer(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Instances of each image at its output size.

        Images that are padded to different sizes run one group after the other: as nothing masks
        the padding, an image would depend on what it shares a batch with.
        """
        return run_in_groups(batched_inputs, self.padded_size, self.infer_together)

    def infer_together(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Instances of images that share one padded size."""
        images = self.preprocess(batched_inputs)
        features = self.features(images)
        predictions = self.decoder(features, images.image_sizes)
        return [
            {"instances": self.segment(self.detect(features, predictions, index), inputs)}
            for index, inputs in enumerate(batched_inputs)
        ]

    def detect(
        self, features: Features, predictions: Sequence[StagePrediction], index: int
    ) -> Detections:
        """The best (query, class) pairs of one image with their masks (section 4.2, inference).

        Only the last stage's mask head runs, on the queries that are among the best.

        Args:
            features: levels of the batch.
            predictions: of every stage.
            index: number of the image in the batch.
        """
        boxes_xyxy_abs = predictions[-1].boxes_xyxy_abs[index]
        class_probs = predictions[-1].class_logits[index].to(boxes_xyxy_abs.dtype).sigmoid()
        scores, classes, query_idx = top_classes(class_probs, self.max_detections)
        kept, place = query_idx.unique(return_inverse=True)
        box_feats = self.mask_branch.box_features(
            features, boxes_xyxy_abs[kept], torch.full_like(kept, index)
        )
        queries = [x.mask_queries[index, kept] for x in predictions]
        mask_logits = self.mask_branch(len(predictions) - 1, box_feats, queries, classes, place)
        mask_probs = mask_logits.to(boxes_xyxy_abs.dtype).sigmoid()
        return Detections(scores, classes, query_idx, boxes_xyxy_abs[query_idx], mask_probs)

    def segment(self, detections: Detections, inputs: dict[str, Any]) -> Instances:
        """Detections of an image at its output size."""
        height, width = inputs["image"].shape[-2:]
        size = output_size(inputs, (height, width))
        return detections.to_instances((height, width), size, clip_boxes=self.clip_boxes)
