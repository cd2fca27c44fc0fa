"""Losses of masks inside predicted boxes.

The paper names a mask loss on sampled points and a loss of the predicted IoU, and leaves the rest
open. What is chosen here follows Mask2Former, PointRend and Mask Scoring R-CNN.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from queryseg.losses import (
    PointSampler,
    mask_bce_loss,
    mask_dice_loss,
    mean_target_count,
    sample_maps,
    sample_masks,
)
from queryseg.matching import MaskTargets
from queryseg.projects.mask_frozen_detr.detections import Detections
from queryseg.projects.mask_frozen_detr.mask_network import MaskPrediction


class MaskCriterion(nn.Module):
    """Binary cross-entropy and Dice loss at points of the box, and the error of the predicted IoU.

    Ground truth is the part of an instance inside the predicted box; what lies outside counts only
    for the IoU.

    Args:
        weights: of the losses `mask`, `dice` and `iou`.
        point_sampler: chooses the points; None to take the middle of every cell.
    """

    def __init__(self, *, weights: Mapping[str, float], point_sampler: PointSampler | None) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.point_sampler = point_sampler

    def forward(
        self,
        prediction: MaskPrediction,
        detections: Detections,
        tgt_idx: Tensor,
        targets: MaskTargets,
    ) -> dict[str, Tensor]:
        """Weighted losses by name.

        Args:
            prediction: masks of N matched detections.
            detections: these.
            tgt_idx: (N,) int64, the instance that each of them stands for.
            targets: ground truth of the batch.
        """
        with torch.autocast(tgt_idx.device.type, enabled=False):
            mask_logits = prediction.mask_logits.float()
            boxes = BoxGrid(detections.boxes_xyxy_abs.float(), tgt_idx, targets)
            points = self._points(mask_logits)
            wanted = boxes.sample(points)
            logits = sample_maps(mask_logits[:, None], points)[:, 0] if len(points) else wanted
            logits = logits + 0.0 * mask_logits.sum()
            count = mean_target_count(len(targets.labels), wanted.device)
            losses = {
                "loss_mask": self.weights["mask"] * mask_bce_loss(logits, wanted).sum() / count,
                "loss_dice": self.weights["dice"] * mask_dice_loss(logits, wanted).sum() / count,
            }
            if prediction.ious is not None:
                ious = prediction.ious.float().gather(1, targets.labels[tgt_idx][:, None])[:, 0]
                errors = (ious - boxes.mask_iou(mask_logits.detach())).square()
                losses["loss_iou"] = self.weights["iou"] * errors.sum() / count
        return losses

    def _points(self, mask_logits: Tensor) -> Tensor:
        if self.point_sampler is None:
            return cell_middles(mask_logits.shape[-1], mask_logits.device).expand(
                len(mask_logits), -1, -1
            )
        return self.point_sampler.uncertain(mask_logits.detach())


class BoxGrid:
    """Ground truth as seen from inside predicted boxes.

    Args:
        boxes_xyxy_abs: (N, 4) in pixels of the padded batch.
        tgt_idx: (N,) int64 instance of each box.
        targets: ground truth of the batch.
    """

    def __init__(self, boxes_xyxy_abs: Tensor, tgt_idx: Tensor, targets: MaskTargets) -> None:
        self.boxes = boxes_xyxy_abs
        self.tgt_idx = tgt_idx
        self.targets = targets

    def sample(self, points: Tensor) -> Tensor:
        """(N, P) values of the masks at points (N, P, 2), x, y in [0, 1] of each box."""
        corner, far = self.boxes[:, None].split(2, dim=-1)
        height, width = self.targets.masks.shape[-2:]
        pixels = corner + points * (far - corner)
        return sample_masks(
            self.targets.masks, pixels / pixels.new_tensor([width, height]), self.tgt_idx
        )

    def mask_iou(self, mask_logits: Tensor) -> Tensor:
        """(N,) IoU of thresholded masks (N, h, h) with the whole instance, counted in cells."""
        size = mask_logits.shape[-1]
        middles = cell_middles(size, mask_logits.device).expand(len(mask_logits), -1, -1)
        real = self.sample(middles) >= 0.5
        ours = mask_logits.flatten(1) > 0
        extent = (self.boxes[:, 2:] - self.boxes[:, :2]).prod(-1).clamp(min=1e-6)
        area = self.targets.masks.flatten(1).sum(1)[self.tgt_idx] * (size * size / extent)
        overlap = (real & ours).sum(1)
        union = ours.sum(1) + torch.maximum(area, real.sum(1)) - overlap
        return overlap / union.clamp(min=1e-6)


def cell_middles(size: int, device: torch.device) -> Tensor:
    """(size * size, 2) x, y in [0, 1] of the middles of a grid's cells, row by row."""
    steps = (torch.arange(size, device=device) + 0.5) / size
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack((x, y), dim=-1).flatten(0, 1)
