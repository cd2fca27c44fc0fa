"""Box costs against loops, and which queries the instances of a batch get."""

import math

import pytest
import torch
from detectron2.structures import Boxes, Instances
from torchvision.ops import generalized_box_iou

from queryseg.matching import BoxMatcher, BoxTargets, cost_box, cost_focal, cost_giou


def _targets() -> BoxTargets:
    first = Instances((40, 80))
    first.gt_classes = torch.tensor([2, 0])
    first.gt_boxes = Boxes(torch.tensor([[8.0, 4.0, 24.0, 12.0], [40.0, 20.0, 80.0, 40.0]]))
    second = Instances((30, 20))
    second.gt_classes = torch.tensor([1])
    second.gt_boxes = Boxes(torch.tensor([[0.0, 0.0, 10.0, 30.0]]))
    return BoxTargets.from_instances([first, second], torch.device("cpu"))


def test_boxes_are_shares_of_their_own_image() -> None:
    targets = _targets()
    expected = [[0.2, 0.2, 0.2, 0.2], [0.75, 0.75, 0.5, 0.5], [0.25, 0.5, 0.5, 1.0]]
    assert torch.allclose(targets.boxes_cxcywh_norm, torch.tensor(expected))
    assert targets.sizes == (2, 1)
    assert targets.image_idx.tolist() == [0, 0, 1]
    assert targets.without_classes().labels.tolist() == [0, 0, 0]


def test_focal_cost_is_the_positive_minus_the_negative_loss() -> None:
    logits = 3 * torch.randn(2, 3, 4, dtype=torch.float64)
    labels = torch.tensor([[3, 0], [1, 1]])
    cost = cost_focal(logits, labels)
    for image in range(2):
        for query in range(3):
            for instance in range(2):
                p = 1 / (1 + math.exp(-float(logits[image, query, labels[image, instance]])))
                expected = -0.25 * (1 - p) ** 2 * math.log(p) + 0.75 * p**2 * math.log(1 - p)
                assert float(cost[image, query, instance]) == pytest.approx(expected, rel=1e-9)


def test_focal_cost_of_huge_logits_stays_finite() -> None:
    cost = cost_focal(torch.tensor([[[300.0, -300.0]]]), torch.tensor([[0, 1]]))
    assert cost.isfinite().all()
    assert float(cost[0, 0, 0]) < -15 and float(cost[0, 0, 1]) > 5


def test_box_costs_compare_all_pairs() -> None:
    corners = torch.rand(2, 5, 2, dtype=torch.float64)
    boxes = torch.cat((corners, corners + 0.1 + torch.rand_like(corners)), dim=-1)
    distance, overlap = cost_box(boxes[:, :3], boxes[:, 3:]), cost_giou(boxes[:, :3], boxes[:, 3:])
    for image in range(2):
        a, b = boxes[image, :3], boxes[image, 3:]
        expected = (a[:, None] - b).abs().sum(-1)
        assert torch.allclose(distance[image], expected, rtol=1e-9)
        assert torch.allclose(overlap[image], -generalized_box_iou(a, b), rtol=1e-9)


def test_cost_is_the_weighted_sum_of_its_terms() -> None:
    targets, logits, boxes = _targets(), torch.randn(2, 6, 3), 0.1 + 0.8 * torch.rand(2, 6, 4)
    parts = torch.stack(
        [
            BoxMatcher(weight_class=a, weight_box=b, weight_giou=c).cost(logits, boxes, targets)
            for a, b, c in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
        ]
    )
    weights = torch.tensor([2.0, 5.0, 2.0])[:, None, None, None]
    whole = BoxMatcher().cost(logits, boxes, targets)
    assert torch.allclose(whole, (weights * parts).sum(0), atol=1e-5)
    x0, y0, x1, y1 = (
        float(boxes[1, 2, axis]) + sign * float(boxes[1, 2, axis + 2]) / 2
        for sign in (-1, 1)
        for axis in (0, 1)
    )
    pixels = torch.tensor([[20 * x0, 30 * y0, 20 * x1, 30 * y1]])
    expected = -generalized_box_iou(pixels, targets.boxes_xyxy_abs[2:])
    assert float(parts[2, 1, 2, 0]) == pytest.approx(float(expected), rel=1e-4)


def test_every_instance_gets_the_query_that_predicts_it() -> None:
    targets = _targets()
    boxes = torch.full((2, 4, 4), 0.05)
    logits = torch.full((2, 4, 3), -4.0)
    for image, query, instance in ((0, 3, 0), (0, 1, 1), (1, 2, 2)):
        boxes[image, query] = targets.boxes_cxcywh_norm[instance]
        logits[image, query, targets.labels[instance]] = 4.0
    wrong = logits.flip(2)
    good, agnostic = BoxMatcher()([(logits, boxes), (wrong, boxes)], targets)
    for assignment in (good, agnostic):
        assert assignment.image_idx.tolist() == [0, 0, 1]
        assert assignment.src_idx.tolist() == [1, 3, 2]
        assert assignment.tgt_idx.tolist() == [1, 0, 2]


def test_batch_without_instances_matches_nothing() -> None:
    empty = Instances((10, 10))
    empty.gt_classes = torch.zeros(0, dtype=torch.int64)
    empty.gt_boxes = Boxes(torch.zeros(0, 4))
    targets = BoxTargets.from_instances([empty, empty], torch.device("cpu"))
    (assignment,) = BoxMatcher()([(torch.randn(2, 5, 3), torch.rand(2, 5, 4))], targets)
    assert len(assignment.src_idx) == 0 and assignment.sizes == (0, 0)
