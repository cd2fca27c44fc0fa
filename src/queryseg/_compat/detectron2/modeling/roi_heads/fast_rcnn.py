"""Class scores and box deltas of proposals (https://arxiv.org/abs/1504.08083).

Shapes: B images, R proposals in all, K classes (the background is class K).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectron2._subset import NeedsRealDetectron2
from detectron2.config import configurable
from detectron2.layers import ShapeSpec, batched_nms, cat, cross_entropy, nonzero_tuple
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage

from ..box_regression import (
    Box2BoxTransform,
    Box2BoxTransformLinear,
    _dense_box_regression_loss,
)

Predictions: TypeAlias = tuple[Tensor, Tensor]


def fast_rcnn_inference(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[Tensor]]:
    """Turn scored boxes into detections, image by image.

    Args:
        boxes: per image (R_i, 4 * K) xyxy, or (R_i, 4) if all classes share the box.
        scores: per image (R_i, K + 1) probabilities.
        image_shapes: (height, width) of each image, to which boxes are clipped.
        score_thresh: only scores above it count.
        nms_thresh: IoU above which the lower-scoring box of a class is dropped.
        topk_per_image: detections to keep; negative = all.

    Returns:
        Per image, `pred_boxes`, `scores` and `pred_classes` by decreasing score, and the row each
        detection comes from, counted among the rows without Inf or NaN.
    """
    results = [
        fast_rcnn_inference_single_image(*image, score_thresh, nms_thresh, topk_per_image)
        for image in zip(boxes, scores, image_shapes)
    ]
    return [instances for instances, _ in results], [rows for _, rows in results]


def fast_rcnn_inference_single_image(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Instances, Tensor]:
    """As `fast_rcnn_inference`, for one image. Rows with an Inf or a NaN are dropped first."""
    finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
    if not finite.all():
        boxes, scores = boxes[finite], scores[finite]
    scores = scores[:, :-1]
    clipped = Boxes(boxes.reshape(-1, 4))
    clipped.clip(image_shape)
    # (R, K, 4) or (R, 1, 4)
    boxes = clipped.tensor.view(len(boxes), boxes.shape[1] // 4, 4)
    rows, classes = nonzero_tuple(scores > score_thresh)
    candidates = boxes[rows, classes if boxes.shape[1] > 1 else 0]
    scores = scores[rows, classes]
    keep = batched_nms(candidates, scores, classes, nms_thresh)
    if topk_per_image >= 0:
        keep = keep[:topk_per_image]
    result = Instances(image_shape)
    result.pred_boxes = Boxes(candidates[keep])
    result.scores = scores[keep]
    result.pred_classes = classes[keep]
    return result, rows[keep]


def _log_classification_stats(
    pred_logits: Tensor, gt_classes: Tensor, prefix: str = "fast_rcnn"
) -> None:
    """Store the accuracy of (R, K + 1) logits: of all, of the foreground, and missed foreground."""
    if gt_classes.numel() == 0:
        return
    background = pred_logits.shape[1] - 1
    predicted = pred_logits.argmax(dim=1)
    correct = predicted == gt_classes
    foreground = (gt_classes >= 0) & (gt_classes < background)
    num_foreground = foreground.sum().item()
    storage = get_event_storage()
    storage.put_scalar(f"{prefix}/cls_accuracy", correct.sum().item() / len(gt_classes))
    if num_foreground > 0:
        hits = (correct & foreground).sum().item()
        missed = ((predicted == background) & foreground).sum().item()
        storage.put_scalar(f"{prefix}/fg_cls_accuracy", hits / num_foreground)
        storage.put_scalar(f"{prefix}/false_negative", missed / num_foreground)


class FastRCNNOutputLayers(nn.Module):
    """One linear layer for class scores, one for box deltas; their losses and inference.

    Args:
        input_shape: of the features of one box.
        box2box_transform: of the deltas.
        num_classes: K.
        test_score_thresh, test_nms_thresh, test_topk_per_image: of `fast_rcnn_inference`.
        cls_agnostic_bbox_reg: all classes share the box.
        smooth_l1_beta, box_reg_loss_type: of the box loss.
        loss_weight: of both losses, or by name ("loss_cls", "loss_box_reg").
        use_sigmoid_ce: one binary classifier per class instead of a softmax.
        use_fed_loss, get_fed_loss_cls_weights, fed_loss_num_classes: federated loss, which is
            outside the subset.

    Raises:
        NeedsRealDetectron2: `use_fed_loss`.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec | int,
        *,
        box2box_transform: Box2BoxTransform | Box2BoxTransformLinear,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: float | Mapping[str, float] = 1.0,
        use_fed_loss: bool = False,
        use_sigmoid_ce: bool = False,
        get_fed_loss_cls_weights: Callable[[], Tensor] | None = None,
        fed_loss_num_classes: int = 50,
    ) -> None:
        super().__init__()
        if use_fed_loss:
            raise NeedsRealDetectron2("FastRCNNOutputLayers(use_fed_loss=True)")
        shape = ShapeSpec(channels=input_shape) if isinstance(input_shape, int) else input_shape
        width = shape.channels * (shape.width or 1) * (shape.height or 1)
        num_boxes = 1 if cls_agnostic_bbox_reg else num_classes
        self.num_classes = num_classes
        self.cls_score = nn.Linear(width, num_classes + 1)
        self.bbox_pred = nn.Linear(width, num_boxes * 4)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        for layer in (self.cls_score, self.bbox_pred):
            nn.init.zeros_(layer.bias)
        self.box2box_transform = box2box_transform
        self.smooth_l1_beta = smooth_l1_beta
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        self.box_reg_loss_type = box_reg_loss_type
        if isinstance(loss_weight, (int, float)):
            loss_weight = dict.fromkeys(("loss_cls", "loss_box_reg"), loss_weight)
        self.loss_weight = loss_weight
        self.use_sigmoid_ce = use_sigmoid_ce

    def forward(self, x: Tensor) -> Predictions:
        """Features (R, ...) to class logits (R, K + 1) and deltas (R, 4 * K) or (R, 4)."""
        x = x.flatten(1) if x.dim() > 2 else x
        return self.cls_score(x), self.bbox_pred(x)

    def losses(self, predictions: Predictions, proposals: Sequence[Instances]) -> dict[str, Tensor]:
        """Classification loss of all proposals, box loss of those that belong to an object.

        Args:
            predictions: of `forward`.
            proposals: per image, `proposal_boxes`, `gt_classes`, and `gt_boxes` (not needed where
                all is background).

        Returns:
            `loss_cls` and `loss_box_reg`.
        """
        logits, deltas = predictions
        if len(proposals):
            gt_classes = cat([p.gt_classes for p in proposals])
            boxes = cat([p.proposal_boxes.tensor for p in proposals])
            assert not boxes.requires_grad, "proposals must not require gradients"
            gt_boxes = cat(
                [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals]
            )
        else:
            gt_classes = torch.empty(0, dtype=torch.int64, device=deltas.device)
            boxes = gt_boxes = torch.empty((0, 4), device=deltas.device)
        _log_classification_stats(logits, gt_classes)
        classification = self.sigmoid_cross_entropy_loss if self.use_sigmoid_ce else cross_entropy
        losses = {
            "loss_cls": classification(logits, gt_classes),
            "loss_box_reg": self.box_reg_loss(boxes, gt_boxes, deltas, gt_classes),
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def sigmoid_cross_entropy_loss(self, pred_class_logits: Tensor, gt_classes: Tensor) -> Tensor:
        """Binary cross-entropy per class, summed over classes, averaged over proposals.

        Args:
            pred_class_logits: (R, K + 1); the background's column is not used.
            gt_classes: (R,), K = background.
        """
        if pred_class_logits.numel() == 0:
            return pred_class_logits.sum() * 0.0
        logits = pred_class_logits[:, :-1]
        target = F.one_hot(gt_classes, pred_class_logits.shape[1])[:, :-1].to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return loss.sum() / len(logits)

    def box_reg_loss(
        self, proposal_boxes: Tensor, gt_boxes: Tensor, pred_deltas: Tensor, gt_classes: Tensor
    ) -> Tensor:
        """Box loss of the foreground, divided by the number of all proposals.

        So that every foreground proposal weighs the same, however many an image has.

        Args:
            proposal_boxes, gt_boxes: (R, 4).
            pred_deltas: (R, 4 * K) or (R, 4).
            gt_classes: (R,), K = background.
        """
        (rows,) = nonzero_tuple((gt_classes >= 0) & (gt_classes < self.num_classes))
        if pred_deltas.shape[1] == 4:
            deltas = pred_deltas[rows]
        else:
            deltas = pred_deltas.view(-1, self.num_classes, 4)[rows, gt_classes[rows]]
        loss = _dense_box_regression_loss(
            [proposal_boxes[rows]],
            self.box2box_transform,
            [deltas[None]],
            [gt_boxes[rows]],
            ...,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        return loss / max(gt_classes.numel(), 1.0)

    def inference(
        self, predictions: Predictions, proposals: Sequence[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Detect objects: see `fast_rcnn_inference`."""
        return fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [p.image_size for p in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )

    def predict_boxes(
        self, predictions: Predictions, proposals: Sequence[Instances]
    ) -> Sequence[Tensor]:
        """Decode the boxes of each image: (R_i, 4 * K) or (R_i, 4)."""
        if not len(proposals):
            return []
        boxes = cat([p.proposal_boxes.tensor for p in proposals])
        decoded = self.box2box_transform.apply_deltas(predictions[1], boxes)
        return decoded.split([len(p) for p in proposals])

    def predict_boxes_for_gt_classes(
        self, predictions: Predictions, proposals: Sequence[Instances]
    ) -> Sequence[Tensor]:
        """Decode the box of each proposal's ground-truth class: (R_i, 4) per image.

        Proposals that have no class get some class's box.
        """
        chosen = []
        for boxes, p in zip(self.predict_boxes(predictions, proposals), proposals):
            per_class = boxes.unflatten(1, (-1, 4))
            classes = p.gt_classes.clamp(0, per_class.shape[1] - 1)
            chosen.append(per_class[torch.arange(len(p), device=boxes.device), classes])
        return chosen

    def predict_probs(
        self, predictions: Predictions, proposals: Sequence[Instances]
    ) -> Sequence[Tensor]:
        """Class probabilities (R_i, K + 1) of each image."""
        logits, _ = predictions
        probs = logits.sigmoid() if self.use_sigmoid_ce else logits.softmax(dim=-1)
        return probs.split([len(p) for p in proposals])
