"""Losses of masks inside boxes, against sums done one by one."""

import pytest
import torch
from mask_frozen_model import small_model

from queryseg.losses import PointSampler
from queryseg.matching import MaskTargets
from queryseg.projects.mask_frozen_detr.criterion import BoxGrid, MaskCriterion
from queryseg.projects.mask_frozen_detr.detections import Detections
from queryseg.projects.mask_frozen_detr.mask_network import MaskPrediction

SIZE = 4


def _case() -> tuple[MaskPrediction, Detections, torch.Tensor, MaskTargets]:
    torch.manual_seed(0)
    masks = torch.zeros(2, 20, 30, dtype=torch.bool)
    masks[0, 4:12, 6:18] = True
    masks[1, 10:20, 0:10] = True
    targets = MaskTargets(torch.tensor([2, 0]), masks, (1, 1))
    boxes = torch.tensor([[2.0, 0.0, 14.0, 16.0], [0.0, 8.0, 12.0, 20.0]])
    index = torch.arange(2)
    detections = Detections(index, index, torch.zeros(2, 8), boxes, boxes)
    prediction = MaskPrediction(torch.randn(2, SIZE, SIZE), torch.rand(2, 3))
    return prediction, detections, torch.tensor([0, 1]), targets


def test_losses_at_cell_middles_are_those_of_a_loop() -> None:
    prediction, detections, tgt_idx, targets = _case()
    weights = {"mask": 2.0, "dice": 3.0, "iou": 5.0}
    losses = MaskCriterion(weights=weights, point_sampler=None)(
        prediction, detections, tgt_idx, targets
    )
    mask = dice = iou = 0.0
    for n in range(2):
        x0, y0, x1, y1 = detections.boxes_xyxy_abs[n].tolist()
        target = targets.masks[tgt_idx[n]]
        probs = prediction.mask_logits[n].double().sigmoid()
        real = torch.zeros(SIZE, SIZE, dtype=torch.float64)
        for row in range(SIZE):
            for column in range(SIZE):
                x = x0 + (column + 0.5) * (x1 - x0) / SIZE
                y = y0 + (row + 0.5) * (y1 - y0) / SIZE
                left, top = int(x - 0.5), int(y - 0.5)
                fx, fy = x - 0.5 - left, y - 0.5 - top
                for dy, wy in ((0, 1 - fy), (1, fy)):
                    for dx, wx in ((0, 1 - fx), (1, fx)):
                        real[row, column] += wy * wx * float(target[top + dy, left + dx])
        mask += float(-(real * probs.log() + (1 - real) * (1 - probs).log()).mean())
        dice += float(1 - (2 * (real * probs).sum() + 1) / (real.sum() + probs.sum() + 1))
        cell = (x1 - x0) * (y1 - y0) / SIZE**2
        ours = probs > 0.5
        overlap = float((ours & (real >= 0.5)).sum())
        union = float(ours.sum()) + float(target.sum()) / cell - overlap
        label = int(targets.labels[tgt_idx[n]])
        iou += (float(prediction.ious[n, label]) - overlap / union) ** 2
    assert losses["loss_mask"].item() == pytest.approx(2 * mask / 2, rel=1e-5)
    assert losses["loss_dice"].item() == pytest.approx(3 * dice / 2, rel=1e-5)
    assert losses["loss_iou"].item() == pytest.approx(5 * iou / 2, rel=1e-5)


def test_full_overlap_is_an_iou_of_one_and_cut_objects_lose_what_is_outside() -> None:
    masks = torch.zeros(1, 32, 32, dtype=torch.bool)
    masks[0, 8:24, 8:24] = True
    targets = MaskTargets(torch.tensor([0]), masks, (1,))
    exact, half = ([[8.0, 8.0, 24.0, 24.0]], [[8.0, 8.0, 16.0, 24.0]])
    logits = torch.full((1, 8, 8), 5.0)
    for box, expected in ((exact, 1.0), (half, 0.5)):
        grid = BoxGrid(torch.tensor(box), torch.tensor([0]), targets)
        assert grid.mask_iou(logits).item() == pytest.approx(expected)
    assert grid.mask_iou(-logits).item() == 0.0


def test_point_sampler_prefers_undecided_cells_and_the_iou_teaches_no_masks() -> None:
    prediction, detections, tgt_idx, targets = _case()
    logits = prediction.mask_logits.requires_grad_()
    criterion = MaskCriterion(
        weights={"mask": 1.0, "dice": 1.0, "iou": 1.0}, point_sampler=PointSampler(num_points=4)
    )
    losses = criterion(prediction, detections, tgt_idx, targets)
    assert not losses["loss_iou"].requires_grad
    (gradient,) = torch.autograd.grad(losses["loss_mask"], logits)
    assert 0 < (gradient != 0).sum() <= 2 * 4 * 4


def test_mask_scoring_sends_no_gradient_into_the_masks() -> None:
    network = small_model().mask_network
    logits = torch.randn(2, 16, 16, requires_grad=True)
    features = torch.randn(2, 16, 16, 32, requires_grad=True)
    assert network.scoring is not None
    scores = network.scoring(logits, features)
    assert scores.shape == (2, 6)
    scores.sum().backward()
    assert logits.grad is None
    assert features.grad is not None and features.grad.abs().sum() > 0
