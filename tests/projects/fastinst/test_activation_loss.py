"""Instance activation loss against loops."""

import math
from itertools import permutations

import pytest
import torch

from queryseg.matching import MaskTargets
from queryseg.projects.fastinst.activation_loss import InstanceActivationLoss, PixelMatcher


def _loss(**options: object) -> InstanceActivationLoss:
    matcher = PixelMatcher(weight_class=2.0, weight_location=1000.0)
    return InstanceActivationLoss(matcher=matcher, **options)


def _targets() -> MaskTargets:
    masks = torch.zeros(3, 32, 48, dtype=torch.bool)
    masks[0, :16, 16:32] = True
    masks[1, 3:30, 3:40] = True
    masks[2, 17, 20] = True
    return MaskTargets(torch.tensor([1, 0, 2]), masks, (2, 1))


def test_each_instance_gets_the_best_pixel_inside_it() -> None:
    targets, logits = _targets(), torch.randn(2, 4, 2, 3)
    matched = _loss().matcher(logits, targets)
    probs = logits.softmax(1)
    for image, labels, inside in (
        (0, (1, 0), ({1}, {0, 1, 2, 3, 4, 5})),
        (1, (2,), ({4},)),
    ):
        pixels, instances = matched.of_image(image)
        chosen = dict(zip(instances.tolist(), pixels.tolist()))
        costs = {}
        for order in permutations(range(6), len(labels)):
            costs[order] = sum(
                -2.0 * float(probs[image, label, pixel // 3, pixel % 3]) - 1000 * (pixel in cells)
                for pixel, label, cells in zip(order, labels, inside)
            )
        best = min(costs, key=costs.__getitem__)
        assert [chosen[i] for i in range(len(labels))] == list(best)


@pytest.mark.parametrize("balanced", [False, True])
def test_matched_pixels_have_a_class_and_all_others_none(balanced: bool) -> None:
    targets, logits = _targets(), torch.randn(2, 4, 2, 3)
    loss = _loss(balanced=balanced)
    matched = loss.matcher(logits, targets)
    labels = torch.full((2, 6), 3)
    labels[matched.image_idx, matched.src_idx] = targets.labels[matched.tgt_idx]
    total = weights = 0.0
    for image in range(2):
        for pixel in range(6):
            row = logits[image, :, pixel // 3, pixel % 3].double()
            label = int(labels[image, pixel])
            weight = 1 / 6 if balanced and label == 3 else 1.0
            total += weight * (math.log(sum(math.exp(x) for x in row)) - float(row[label]))
            weights += weight
    assert float(loss(logits, targets)) == pytest.approx(total / weights, rel=1e-5)


def test_dense_target_labels_every_covered_pixel_with_the_smallest_instance() -> None:
    masks = torch.zeros(3, 32, 48, dtype=torch.bool)
    masks[0] = True
    masks[1, 16:, 16:] = True
    masks[2, 16:, 32:] = True
    targets = MaskTargets(torch.tensor([0, 1, 2]), masks, (0, 3))
    logits = 30.0 * torch.nn.functional.one_hot(
        torch.tensor([[3] * 6, [0, 0, 0, 0, 1, 2]]), 4
    ).float().mT.view(2, 4, 2, 3)
    loss = _loss(target="dense")
    assert float(loss(logits, targets)) == pytest.approx(0.0, abs=1e-6)
    assert float(loss(-logits, targets)) > 10


def test_no_instances_teach_no_object_everywhere() -> None:
    empty = torch.tensor([], dtype=torch.int64)
    targets = MaskTargets(empty, torch.zeros(0, 32, 48, dtype=torch.bool), (0, 0))
    for target in ("matched", "dense"):
        logits = torch.randn(2, 4, 2, 3, requires_grad=True)
        loss = _loss(target=target)(logits, targets)
        expected = -logits.log_softmax(1)[:, 3].mean()
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)
        loss.backward()
        assert logits.grad is not None and logits.grad.isfinite().all()


def test_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match="'sparse'; expected 'matched' or 'dense'"):
        _loss(target="sparse")
