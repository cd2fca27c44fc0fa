"""Mask and class losses against loops in float64."""

import math

import pytest
import torch

from queryseg.losses import class_cross_entropy, mask_bce_loss, mask_dice_loss


def test_bce_is_the_mean_over_the_points_of_each_mask() -> None:
    logits, targets = 4 * torch.randn(3, 6), torch.rand(3, 6)
    losses = mask_bce_loss(logits, targets)
    for index in range(3):
        total = 0.0
        for x, t in zip(logits[index].tolist(), targets[index].tolist()):
            p = 1 / (1 + math.exp(-x))
            total -= t * math.log(p) + (1 - t) * math.log(1 - p)
        assert float(losses[index]) == pytest.approx(total / 6, rel=1e-5)


def test_dice_compares_twice_the_overlap_with_both_areas() -> None:
    logits, targets = 4 * torch.randn(3, 6), torch.rand(3, 6)
    losses = mask_dice_loss(logits, targets)
    for index in range(3):
        p, t = torch.sigmoid(logits[index].double()), targets[index].double()
        expected = 1 - (2 * float(p @ t) + 1) / (float(p.sum()) + float(t.sum()) + 1)
        assert float(losses[index]) == pytest.approx(expected, abs=1e-6)


def test_no_masks_give_no_losses_and_a_zero_gradient() -> None:
    logits = torch.zeros(0, 6, requires_grad=True)
    total = mask_bce_loss(logits, torch.zeros(0, 6)).sum()
    total = total + mask_dice_loss(logits, torch.zeros(0, 6)).sum()
    assert total == 0
    total.backward()
    assert logits.grad is not None


@pytest.mark.parametrize("no_object_weight", [1.0, 0.1])
def test_class_loss_is_a_weighted_mean(no_object_weight: float) -> None:
    logits = torch.randn(2, 5, 4)
    labels = torch.tensor([[0, 3, 3, 1, 3], [3, 3, 2, 3, 3]])
    total = weights = 0.0
    for image in range(2):
        for query in range(5):
            row = logits[image, query].double()
            label = int(labels[image, query])
            weight = no_object_weight if label == 3 else 1.0
            total += weight * (math.log(sum(math.exp(x) for x in row)) - float(row[label]))
            weights += weight
    loss = class_cross_entropy(logits, labels, no_object_weight)
    assert float(loss) == pytest.approx(total / weights, rel=1e-5)
