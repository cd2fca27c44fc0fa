"""From scored boxes to proposals, and from ground truth to proposals."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detectron2.layers import batched_nms, cat
from detectron2.structures import Boxes, Instances

# Objectness of a ground-truth box: the logit of a probability a hair below 1.
GT_LOGIT = math.log((1.0 - 1e-10) / (1 - (1.0 - 1e-10)))


def find_top_rpn_proposals(
    proposals: Sequence[Tensor],
    pred_objectness_logits: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """Keep the best boxes of each level, then the best of each image after NMS per level.

    Args:
        proposals: boxes of each level, (B, R_l, 4) xyxy.
        pred_objectness_logits: their scores, (B, R_l).
        image_sizes: (height, width) of each image, to which boxes are clipped.
        nms_thresh: IoU above which the lower-scoring box of a level is dropped.
        pre_nms_topk: boxes per level and image before NMS.
        post_nms_topk: boxes per image after NMS.
        min_box_size: boxes with a side of at most this many pixels are dropped.
        training: whether Inf or NaN is an error.

    Returns:
        Per image, `proposal_boxes` and `objectness_logits` by decreasing score.

    Raises:
        FloatingPointError: Inf or NaN among the best boxes in training. (Else they are dropped.)
    """
    scores, boxes, levels = [], [], []
    for level, (level_boxes, level_scores) in enumerate(zip(proposals, pred_objectness_logits)):
        top_scores, top = level_scores.topk(min(pre_nms_topk, level_scores.shape[1]), dim=1)
        scores.append(top_scores)
        boxes.append(level_boxes.gather(1, top[..., None].expand(-1, -1, 4)))
        levels.append(top.new_full((top.shape[1],), level))
    per_image = zip(cat(boxes, dim=1), cat(scores, dim=1), image_sizes)
    level = cat(levels)
    return [
        _top_of_image(*candidates, level, nms_thresh, post_nms_topk, min_box_size, training)
        for candidates in per_image
    ]


def _top_of_image(
    corners: Tensor,
    scores: Tensor,
    image_size: tuple[int, int],
    level: Tensor,
    nms_thresh: float,
    topk: int,
    min_box_size: float,
    training: bool,
) -> Instances:
    finite = torch.isfinite(corners).all(dim=1) & torch.isfinite(scores)
    if not finite.all():
        if training:
            raise FloatingPointError(
                "Predicted boxes or scores contain Inf/NaN. Training has diverged."
            )
        corners, scores, level = corners[finite], scores[finite], level[finite]
    boxes = Boxes(corners)
    boxes.clip(image_size)
    large = boxes.nonempty(threshold=min_box_size)
    boxes, scores, level = boxes[large], scores[large], level[large]
    keep = batched_nms(boxes.tensor, scores, level, nms_thresh)[:topk]
    return Instances(image_size, proposal_boxes=boxes[keep], objectness_logits=scores[keep])


def add_ground_truth_to_proposals(
    gt: Sequence[Instances | Boxes], proposals: list[Instances]
) -> list[Instances]:
    """Append the ground-truth boxes of each image to its proposals, with a very high score.

    Args:
        gt: per image, instances with `gt_boxes`, or the boxes.
        proposals: per image, with `proposal_boxes` and `objectness_logits`.

    Raises:
        ValueError: another number of images in `gt`.
    """
    if len(proposals) != len(gt):
        raise ValueError(f"proposals of {len(proposals)} images, ground truth of {len(gt)}")
    pairs = zip(gt, proposals)
    return [add_ground_truth_to_proposals_single_image(*pair) for pair in pairs]


def add_ground_truth_to_proposals_single_image(
    gt: Instances | Boxes, proposals: Instances
) -> Instances:
    """As `add_ground_truth_to_proposals`, for one image.

    Only the fields of `proposals` are kept; `gt` must have those other than the boxes and logits.
    """
    fields = {"gt_boxes": gt} if isinstance(gt, Boxes) else gt.get_fields()
    boxes = fields["gt_boxes"]
    logits = torch.full((len(boxes),), GT_LOGIT, device=proposals.objectness_logits.device)
    appended = Instances(proposals.image_size, **fields)
    appended.proposal_boxes = boxes
    appended.objectness_logits = logits
    for name in proposals.get_fields():
        assert appended.has(name), f"proposals have the field {name!r}, the ground truth does not"
    return Instances.cat([proposals, appended])
