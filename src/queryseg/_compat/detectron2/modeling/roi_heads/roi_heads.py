"""What an R-CNN computes for each box."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detectron2._subset import NeedsRealDetectron2, outside
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import Registry

from ..matcher import Matcher
from ..poolers import ROIPooler
from ..proposal_generator.proposal_utils import add_ground_truth_to_proposals
from ..sampling import subsample_labels

ROI_HEADS_REGISTRY = Registry("ROI_HEADS")


def build_roi_heads(cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> nn.Module:
    """Build the heads registered under the name `cfg.MODEL.ROI_HEADS.NAME`."""
    return ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME)(cfg, input_shape)


def select_foreground_proposals(
    proposals: Sequence[Instances], bg_label: int
) -> tuple[list[Instances], list[Tensor]]:
    """Keep the proposals whose `gt_classes` is neither -1 nor `bg_label`.

    Returns:
        Per image, the kept proposals, and a bool mask of which they are.
    """
    masks = [(p.gt_classes != -1) & (p.gt_classes != bg_label) for p in proposals]
    return [p[mask.nonzero().squeeze(1)] for p, mask in zip(proposals, masks)], masks


class ROIHeads(nn.Module):
    """Base class: matches proposals with the ground truth and samples them for training.

    Args:
        num_classes: K; the background is class K.
        batch_size_per_image: proposals per image in the losses.
        positive_fraction: at most this part of them is foreground.
        proposal_matcher: labels proposals by their IoU with the ground truth.
        proposal_append_gt: add the ground-truth boxes to the proposals. At the start of training
            they are the only good ones.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        proposal_append_gt: bool = True,
    ) -> None:
        super().__init__()
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.num_classes = num_classes
        self.proposal_matcher = proposal_matcher
        self.proposal_append_gt = proposal_append_gt

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: Sequence[Instances]
    ) -> list[Instances]:
        """Draw proposals and give them the fields of the objects they overlap.

        Args:
            proposals: per image, `proposal_boxes` and `objectness_logits`.
            targets: per image, `gt_boxes`, `gt_classes` and more fields `gt_*`.

        Returns:
            Per image, the drawn proposals with `gt_classes` (K = background), and the other `gt_*`
            fields where the image has objects (meaningless on background).
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        sampled = [self._label_and_sample(*image) for image in zip(proposals, targets)]
        background = [(p.gt_classes == self.num_classes).sum().item() for p in sampled]
        foreground = [len(p) - n for p, n in zip(sampled, background)]
        storage = get_event_storage()
        storage.put_scalar("roi_head/num_fg_samples", np.mean(foreground))
        storage.put_scalar("roi_head/num_bg_samples", np.mean(background))
        return sampled

    def _label_and_sample(self, proposals: Instances, targets: Instances) -> Instances:
        iou = pairwise_iou(targets.gt_boxes, proposals.proposal_boxes)
        matches, labels = self.proposal_matcher(iou)
        drawn, classes = self._sample_proposals(matches, labels, targets.gt_classes)
        sampled = proposals[drawn]
        sampled.gt_classes = classes
        if len(targets) > 0:
            for name, values in targets.get_fields().items():
                if name.startswith("gt_") and not sampled.has(name):
                    sampled.set(name, values[matches[drawn]])
        return sampled

    def _sample_proposals(
        self, matched_idxs: Tensor, matched_labels: Tensor, gt_classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draw proposals of one image.

        Args:
            matched_idxs, matched_labels: (R,) object and label of each proposal.
            gt_classes: (N,) class of each object.

        Returns:
            Indices of the drawn proposals, foreground first, and their classes.
        """
        if len(gt_classes) > 0:
            classes = gt_classes[matched_idxs]
            classes[matched_labels == 0] = self.num_classes
            classes[matched_labels == -1] = -1
        else:
            classes = torch.full_like(matched_idxs, self.num_classes)
        foreground, background = subsample_labels(
            classes, self.batch_size_per_image, self.positive_fraction, self.num_classes
        )
        drawn = torch.cat([foreground, background])
        return drawn, classes[drawn]

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: list[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Detect objects, or compute losses.

        Args:
            images: B images.
            features: named feature maps, each (B, C, H_l, W_l).
            proposals: per image, `proposal_boxes` and `objectness_logits`.
            targets: per image, `gt_boxes`, `gt_classes`, `gt_masks`; in training.

        Returns:
            Detections (or the proposals used, in training), and the losses (training only).
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward")


@ROI_HEADS_REGISTRY.register()
class StandardROIHeads(ROIHeads):
    """Separate heads for boxes and masks, each with its own pooler.

    At test time the mask head sees the detected boxes only.

    Args:
        box_in_features: names of the feature maps for boxes.
        box_pooler, box_head: pooled features of each box, and the network on them.
        box_predictor: such as `FastRCNNOutputLayers`.
        mask_in_features: the same for masks; `None` = no masks.
        mask_pooler: `None` = the mask head is given the feature maps.
        mask_head: such as `MaskRCNNConvUpsampleHead`.
        keypoint_in_features, keypoint_pooler, keypoint_head: outside the subset.
        train_on_pred_boxes: train the mask head on predicted boxes.
        **kwargs: those of `ROIHeads`.

    Raises:
        NeedsRealDetectron2: keypoints are asked for.
    """

    @configurable
    def __init__(
        self,
        *,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: nn.Module,
        mask_in_features: Sequence[str] | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
        keypoint_in_features: Sequence[str] | None = None,
        keypoint_pooler: ROIPooler | None = None,
        keypoint_head: nn.Module | None = None,
        train_on_pred_boxes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if keypoint_in_features is not None:
            raise NeedsRealDetectron2("StandardROIHeads(keypoint_in_features=...)")
        self.in_features = self.box_in_features = box_in_features
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.mask_on = mask_in_features is not None
        if self.mask_on:
            self.mask_in_features = mask_in_features
            self.mask_pooler = mask_pooler
            self.mask_head = mask_head
        self.keypoint_on = False
        self.train_on_pred_boxes = train_on_pred_boxes

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: list[Instances],
        targets: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """See `ROIHeads.forward`."""
        if not self.training:
            detections = self._forward_box(features, proposals)
            return self.forward_with_given_boxes(features, detections), {}
        assert targets, "targets are needed in training"
        proposals = self.label_and_sample_proposals(proposals, targets)
        losses = self._forward_box(features, proposals)
        losses.update(self._forward_mask(features, proposals))
        return proposals, losses

    def forward_with_given_boxes(
        self, features: Mapping[str, Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Predict masks for boxes that are known.

        Args:
            instances: per image, `pred_boxes` and `pred_classes`; they get `pred_masks`.
        """
        assert not self.training, "only at test time"
        assert instances[0].has("pred_boxes") and instances[0].has("pred_classes"), (
            "instances need pred_boxes and pred_classes"
        )
        return self._forward_mask(features, instances)

    def _forward_box(
        self, features: Mapping[str, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        """Losses in training, else detections."""
        maps = [features[name] for name in self.box_in_features]
        pooled = self.box_pooler(maps, [p.proposal_boxes for p in proposals])
        predictions = self.box_predictor(self.box_head(pooled))
        if not self.training:
            return self.box_predictor.inference(predictions, proposals)[0]
        losses = self.box_predictor.losses(predictions, proposals)
        if self.train_on_pred_boxes:
            with torch.no_grad():
                boxes = self.box_predictor.predict_boxes_for_gt_classes(predictions, proposals)
            for p, predicted in zip(proposals, boxes):
                p.proposal_boxes = Boxes(predicted)
        return losses

    def _forward_mask(
        self, features: Mapping[str, Tensor], instances: list[Instances]
    ) -> dict[str, Tensor] | list[Instances]:
        """Losses of the foreground proposals in training, else `instances` with masks."""
        if not self.mask_on:
            return {} if self.training else instances
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
        if self.mask_pooler is None:
            return self.mask_head(
                {name: features[name] for name in self.mask_in_features}, instances
            )
        boxes = [x.proposal_boxes if self.training else x.pred_boxes for x in instances]
        maps = [features[name] for name in self.mask_in_features]
        return self.mask_head(self.mask_pooler(maps, boxes), instances)


__getattr__ = outside(__name__, "Res5ROIHeads", "select_proposals_with_visible_keypoints")
