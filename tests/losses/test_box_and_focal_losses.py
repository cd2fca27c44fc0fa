"""Focal loss and losses of boxes against fvcore and loops in float64."""

import math

import pytest
import torch
from fvcore.nn import giou_loss

from queryseg.losses import box_giou_loss, box_l1_loss, class_focal_loss


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 1.5)])
def test_focal_loss_is_the_sum_over_all_classes_of_all_queries(alpha: float, gamma: float) -> None:
    logits = 3 * torch.randn(2, 4, 3, dtype=torch.float64)
    labels = torch.tensor([[0, 3, 2, 3], [1, 1, 3, 0]])
    total = 0.0
    for image in range(2):
        for query in range(4):
            for label in range(3):
                p = 1 / (1 + math.exp(-float(logits[image, query, label])))
                if labels[image, query] == label:
                    total -= alpha * (1 - p) ** gamma * math.log(p)
                else:
                    total -= (1 - alpha) * p**gamma * math.log(1 - p)
    loss = class_focal_loss(logits, labels, alpha=alpha, gamma=gamma)
    assert float(loss) == pytest.approx(total, rel=1e-12)


def test_focal_loss_of_huge_logits_stays_finite() -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = class_focal_loss(logits, torch.tensor([1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.25 * 200 + 0.75 * 200)
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_l1_loss_adds_the_coordinates_of_a_box() -> None:
    boxes, targets = torch.rand(3, 4), torch.rand(3, 4)
    for loss, a, b in zip(box_l1_loss(boxes, targets), boxes.tolist(), targets.tolist()):
        assert float(loss) == pytest.approx(sum(abs(x - y) for x, y in zip(a, b)), rel=1e-5)


def test_giou_loss_equals_fvcore() -> None:
    corners = 100 * torch.rand(2, 20, 2, dtype=torch.float64)
    boxes, targets = torch.cat((corners, corners + 5 + 60 * torch.rand_like(corners)), dim=-1)
    expected = giou_loss(boxes, targets, eps=0.0)
    assert torch.allclose(box_giou_loss(boxes, targets), expected, rtol=1e-12)


def test_no_boxes_give_no_loss_and_a_gradient() -> None:
    boxes = torch.zeros(0, 4, requires_grad=True)
    total = box_l1_loss(boxes, boxes.detach()).sum() + box_giou_loss(boxes, boxes.detach()).sum()
    total.backward()
    assert float(total.detach()) == 0 and boxes.grad is not None
