"""Region proposal network (https://arxiv.org/abs/1506.01497)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2.config import configurable
from detectron2.layers import Conv2d, ShapeSpec, cat
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.registry import Registry

from ..box_regression import (
    Box2BoxTransform,
    Box2BoxTransformLinear,
    _dense_box_regression_loss,
)
from ..matcher import Matcher
from ..sampling import subsample_labels
from .build import PROPOSAL_GENERATOR_REGISTRY
from .proposal_utils import find_top_rpn_proposals

RPN_HEAD_REGISTRY = Registry("RPN_HEAD")


def build_rpn_head(cfg: Any, input_shape: Sequence[ShapeSpec]) -> nn.Module:
    """Build the head registered under the name `cfg.MODEL.RPN.HEAD_NAME`."""
    return RPN_HEAD_REGISTRY.get(cfg.MODEL.RPN.HEAD_NAME)(cfg, input_shape)


@RPN_HEAD_REGISTRY.register()
class StandardRPNHead(nn.Module):
    """3x3 convolutions, then one 1x1 convolution for scores and one for box deltas.

    Args:
        in_channels: of every feature map.
        num_anchors: A, per cell.
        box_dim: numbers per box.
        conv_dims: output channels of each 3x3 convolution; -1 = those of its input.

    Raises:
        ValueError: a convolution without output channels.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        num_anchors: int,
        box_dim: int = 4,
        conv_dims: Sequence[int] = (-1,),
    ) -> None:
        super().__init__()
        convs = []
        for dim in conv_dims:
            out_channels = in_channels if dim == -1 else dim
            if out_channels <= 0:
                raise ValueError(f"conv_dims must be positive or -1, got {list(conv_dims)}")
            relu = nn.ReLU()
            convs.append(Conv2d(in_channels, out_channels, 3, padding=1, activation=relu))
            in_channels = out_channels
        # One convolution is not wrapped, so that its name is "conv".
        self.conv = convs[0] if len(convs) == 1 else nn.Sequential()
        if len(convs) != 1:
            for i, conv in enumerate(convs):
                self.conv.add_module(f"conv{i}", conv)
        self.objectness_logits = nn.Conv2d(in_channels, num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(in_channels, num_anchors * box_dim, 1)
        for layer in [*convs, self.objectness_logits, self.anchor_deltas]:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, A, H_l, W_l) and deltas (B, A * box_dim, H_l, W_l) of each feature map."""
        hidden = [self.conv(x) for x in features]
        logits = [self.objectness_logits(x) for x in hidden]
        return logits, [self.anchor_deltas(x) for x in hidden]


@PROPOSAL_GENERATOR_REGISTRY.register()
class RPN(nn.Module):
    """Scores and refines anchors; the best ones are the proposals.

    Args:
        in_features: names of the feature maps to use.
        head: gives logits and deltas per level.
        anchor_generator: gives anchors per level; its `box_dim` is the numbers per box.
        anchor_matcher: labels anchors by their IoU with the ground truth.
        box2box_transform: of the deltas.
        batch_size_per_image: anchors per image in the loss.
        positive_fraction: at most this part of them is foreground.
        pre_nms_topk, post_nms_topk: (training, testing) of `find_top_rpn_proposals`.
        nms_thresh, min_box_size: of `find_top_rpn_proposals`.
        anchor_boundary_thresh: anchors further than this outside the image are ignored in
            training; negative = none are.
        loss_weight: of both losses, or by name.
        box_reg_loss_type, smooth_l1_beta: of the box loss.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        anchor_matcher: Matcher,
        box2box_transform: Box2BoxTransform | Box2BoxTransformLinear,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: Sequence[int],
        post_nms_topk: Sequence[int],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: float | Mapping[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.anchor_matcher = anchor_matcher
        self.box2box_transform = box2box_transform
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.pre_nms_topk = {True: pre_nms_topk[0], False: pre_nms_topk[1]}
        self.post_nms_topk = {True: post_nms_topk[0], False: post_nms_topk[1]}
        self.nms_thresh = nms_thresh
        self.min_box_size = float(min_box_size)
        self.anchor_boundary_thresh = anchor_boundary_thresh
        if isinstance(loss_weight, (int, float)):
            loss_weight = dict.fromkeys(("loss_rpn_cls", "loss_rpn_loc"), loss_weight)
        self.loss_weight = loss_weight
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        gt_instances: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Propose boxes.

        Args:
            images: B images; only their sizes are used.
            features: named feature maps, each (B, C, H_l, W_l).
            gt_instances: per image, with `gt_boxes`; needed in training.

        Returns:
            Per image, `proposal_boxes` and `objectness_logits`; and the losses (training only).
        """
        maps = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(maps)
        logits, deltas = self.rpn_head(maps)
        # One row per anchor, in the order (y, x, anchor) of the generator.
        box_dim = self.anchor_generator.box_dim
        logits = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]
        deltas = [
            x.unflatten(1, (-1, box_dim)).permute(0, 3, 4, 1, 2).flatten(1, -2) for x in deltas
        ]
        losses = {}
        if self.training:
            assert gt_instances is not None, "the RPN needs gt_instances in training"
            gt_labels, gt_boxes = self.label_and_sample_anchors(anchors, gt_instances)
            losses = self.losses(anchors, logits, gt_labels, deltas, gt_boxes)
        return self.predict_proposals(anchors, logits, deltas, images.image_sizes), losses

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: Sequence[Boxes], gt_instances: Sequence[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Choose the anchors that take part in the loss.

        Args:
            anchors: of each level; R in all.
            gt_instances: per image, with `gt_boxes`.

        Returns:
            Per image: (R,) int8 labels, 1 = object, 0 = background, -1 = not chosen; and (R, 4)
            the box each anchor belongs to (meaningless unless the label is 1).
        """
        all_anchors = Boxes.cat(list(anchors))
        gt_labels, matched_boxes = [], []
        for instances in gt_instances:
            boxes = instances.gt_boxes
            quality = retry_if_cuda_oom(pairwise_iou)(boxes, all_anchors)
            matches, labels = retry_if_cuda_oom(self.anchor_matcher)(quality)
            labels = labels.to(boxes.device)  # a retry may have moved it
            if self.anchor_boundary_thresh >= 0:
                inside = all_anchors.inside_box(instances.image_size, self.anchor_boundary_thresh)
                labels[~inside] = -1
            gt_labels.append(self._subsample_labels(labels))
            has_boxes = len(boxes) > 0
            matched_boxes.append(
                boxes.tensor[matches] if has_boxes else torch.zeros_like(all_anchors.tensor)
            )
        return gt_labels, matched_boxes

    def _subsample_labels(self, label: Tensor) -> Tensor:
        """Set to -1, in place, the labels that are not drawn."""
        positive, negative = subsample_labels(
            label, self.batch_size_per_image, self.positive_fraction, 0
        )
        label.fill_(-1)
        label[positive] = 1
        label[negative] = 0
        return label

    def losses(
        self,
        anchors: Sequence[Boxes],
        pred_objectness_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Sum both losses and divide by the number of anchors that should be drawn.

        Args:
            anchors: of each level, R_l each.
            pred_objectness_logits, pred_anchor_deltas: of each level, (B, R_l) and (B, R_l, 4).
            gt_labels, gt_boxes: of `label_and_sample_anchors`.

        Returns:
            `loss_rpn_cls` and `loss_rpn_loc`.
        """
        num_images = len(gt_labels)
        labels = torch.stack(list(gt_labels))
        positive = labels == 1
        storage = get_event_storage()
        storage.put_scalar("rpn/num_pos_anchors", positive.sum().item() / num_images)
        storage.put_scalar("rpn/num_neg_anchors", (labels == 0).sum().item() / num_images)
        loss_loc = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            positive,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        drawn = labels >= 0
        loss_cls = F.binary_cross_entropy_with_logits(
            cat(pred_objectness_logits, dim=1)[drawn], labels[drawn].float(), reduction="sum"
        )
        normalizer = self.batch_size_per_image * num_images
        losses = {"loss_rpn_cls": loss_cls / normalizer, "loss_rpn_loc": loss_loc / normalizer}
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: Sequence[Boxes],
        pred_objectness_logits: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Decode the deltas and keep the best boxes, without gradients (see `losses`)."""
        boxes = [
            self._decode(level_anchors.tensor, deltas)
            for level_anchors, deltas in zip(anchors, pred_anchor_deltas)
        ]
        return find_top_rpn_proposals(
            boxes,
            pred_objectness_logits,
            image_sizes,
            self.nms_thresh,
            self.pre_nms_topk[self.training],
            self.post_nms_topk[self.training],
            self.min_box_size,
            self.training,
        )

    def _decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Boxes (B, R, 4) of `deltas` (B, R, 4) from `anchors` (R, 4)."""
        repeated = anchors.expand(len(deltas), -1, -1).flatten(0, 1)
        return self.box2box_transform.apply_deltas(deltas.flatten(0, 1), repeated).view(
            deltas.shape
        )
