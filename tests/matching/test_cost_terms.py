"""Cost terms against loops in float64."""

import math

import pytest
import torch

from queryseg.matching import cost_class, cost_dice, cost_mask


def test_class_cost_is_minus_the_probability_of_the_label() -> None:
    probs = torch.rand(2, 3, 5)
    labels = torch.tensor([[4, 0], [2, 2]])
    cost = cost_class(probs, labels)
    for image in range(2):
        for query in range(3):
            for instance in range(2):
                expected = -probs[image, query, labels[image, instance]]
                assert cost[image, query, instance] == expected


def test_mask_cost_is_the_mean_cross_entropy_over_the_points() -> None:
    logits, targets = 6 * torch.randn(2, 3, 7), torch.rand(2, 4, 7)
    cost = cost_mask(logits, targets)
    for image in range(2):
        for query in range(3):
            for instance in range(4):
                terms = []
                for x, t in zip(logits[image, query].tolist(), targets[image, instance].tolist()):
                    p = 1 / (1 + math.exp(-x))
                    terms.append(-t * math.log(p) - (1 - t) * math.log(1 - p))
                expected = sum(terms) / 7
                assert float(cost[image, query, instance]) == pytest.approx(expected, rel=1e-5)


def test_mask_cost_of_huge_logits_stays_finite() -> None:
    cost = cost_mask(torch.tensor([[[300.0, -300.0]]]), torch.tensor([[[0.0, 1.0]]]))
    assert float(cost) == pytest.approx(300.0)


def test_dice_cost_counts_overlap_twice_and_smooths_by_one() -> None:
    logits, targets = 3 * torch.randn(2, 3, 7), torch.rand(2, 4, 7)
    cost = cost_dice(logits, targets)
    probs = torch.sigmoid(logits.double())
    for image in range(2):
        for query in range(3):
            for instance in range(4):
                p, t = probs[image, query], targets[image, instance].double()
                expected = 1 - (2 * float((p * t).sum()) + 1) / (float(p.sum() + t.sum()) + 1)
                assert float(cost[image, query, instance]) == pytest.approx(expected, abs=1e-6)
