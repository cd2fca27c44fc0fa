"""The online tracker and the loss it learns from, against sums written out by hand."""

import logging
import math

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from queryseg.matching import Assignment
from queryseg.projects.queryinst.roi_features import BoxFeatures
from queryseg.projects.queryinst.track_head import TrackHead, match_logits, mean_over_mask
from queryseg.projects.queryinst.track_loss import TrackLoss, reference_index
from queryseg.projects.queryinst.tracker import OnlineTracker


def detections(
    feats: list | Tensor, boxes: list | Tensor, classes: list, scores: list | None = None
) -> Instances:
    return Instances(
        (100, 100),
        track_feats=torch.as_tensor(feats, dtype=torch.float64),
        pred_boxes=Boxes(torch.as_tensor(boxes, dtype=torch.float32)),
        pred_classes=torch.as_tensor(classes, dtype=torch.int64),
        scores=torch.as_tensor(scores or [0.5] * len(classes), dtype=torch.float64),
        place=torch.arange(len(classes)),
    )


LEFT, RIGHT, FAR = [0, 0, 10, 10], [40, 0, 50, 10], [80, 80, 90, 90]
A, B = [3.0, 0.0], [0.0, 3.0]


def naive_iou(a: list[float], b: list[float]) -> float:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area - width * height)


def test_fit_is_the_formula_of_masktrack_rcnn() -> None:
    rng = np.random.RandomState(0)

    def random_frame(count: int) -> Instances:
        corner, size = rng.rand(count, 2) * 50, 5 + rng.rand(count, 2) * 40
        scores = (0.1 + 0.9 * rng.rand(count)).tolist()
        boxes = np.concatenate([corner, corner + size], 1).round()
        return detections(rng.randn(count, 6), boxes, rng.randint(2, size=count), scores)

    tracker = OnlineTracker(weight_score=1.5, weight_iou=2.5, weight_class=4.0)
    memory, frame = random_frame(4), random_frame(3)
    tracker(memory)
    fit = tracker.fit(frame)
    assert fit.shape == (3, 5)
    for i in range(3):
        products = [0.0] + [float(frame.track_feats[i] @ memory.track_feats[j]) for j in range(4)]
        total = math.log(sum(math.exp(product) for product in products))
        for j in range(5):
            expected = products[j] - total + 1.5 * math.log(frame.scores[i])
            if j == 0:
                expected += 4.0
            else:
                boxes = (
                    frame.pred_boxes.tensor[i].tolist(),
                    memory.pred_boxes.tensor[j - 1].tolist(),
                )
                same = frame.pred_classes[i] == memory.pred_classes[j - 1]
                expected += 2.5 * naive_iou(*boxes) + 4.0 * float(same)
            assert float(fit[i, j]) == pytest.approx(expected, abs=1e-6)


def test_objects_keep_their_identity_through_a_crossing_by_their_features() -> None:
    tracker = OnlineTracker()
    first = tracker(detections([A, B], [LEFT, RIGHT], [1, 1]))
    assert first.pred_track_ids.tolist() == [0, 1]
    # Both have changed places, and their order.
    second = tracker(detections([B, A], [LEFT, RIGHT], [1, 1]))
    assert second.pred_track_ids.tolist() == [1, 0]


def test_without_features_the_overlap_decides() -> None:
    tracker = OnlineTracker()
    tracker(detections([[0.0], [0.0]], [LEFT, RIGHT], [1, 1]))
    moved = tracker(detections([[0.0], [0.0]], [[41, 0, 51, 10], [1, 0, 11, 10]], [1, 1]))
    assert moved.pred_track_ids.tolist() == [1, 0]


def test_another_class_or_a_strange_look_is_a_new_object() -> None:
    tracker = OnlineTracker()
    tracker(detections([A], [LEFT], [1]))
    # ln softmax of products 0 and 3, plus 10 for new: 6.95, against 1.95 with the overlap.
    assert tracker(detections([[1.0, 0.0]], [LEFT], [2])).pred_track_ids.tolist() == [1]
    opposite = tracker(detections([[-9.0, 0.0]], [FAR], [1]))
    assert opposite.pred_track_ids.tolist() == [2]


def test_of_two_that_take_one_object_the_better_one_gets_it() -> None:
    tracker = OnlineTracker()
    tracker(detections([A], [LEFT], [1]))
    frame = detections([A, A, A], [FAR, LEFT, LEFT], [1, 1, 1], [0.9, 0.3, 0.4])
    kept = tracker(frame)
    # With features alike the overlap (2) outweighs ln(0.9 / 0.4) = 0.8.
    assert (kept.place.tolist(), kept.pred_track_ids.tolist()) == ([2], [0])


def test_an_object_comes_back_after_any_time_with_its_first_class() -> None:
    tracker = OnlineTracker()
    tracker(detections([A, B], [LEFT, RIGHT], [1, 2]))
    for _ in range(5):
        tracker(detections([B], [RIGHT], [2]))
    tracker(detections(torch.zeros(0, 2), torch.zeros(0, 4), []))
    assert tracker(detections([A], [LEFT], [1])).pred_track_ids.tolist() == [0]
    assert tracker.num_remembered == 2


def test_a_reset_starts_to_count_anew() -> None:
    tracker = OnlineTracker()
    tracker(detections([A, B], [LEFT, RIGHT], [1, 1]))
    tracker.reset()
    assert tracker.num_remembered == 0
    assert tracker(detections([B], [LEFT], [1])).pred_track_ids.tolist() == [0]


@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_an_object_keeps_a_share_of_its_old_features(momentum: float) -> None:
    tracker = OnlineTracker(momentum=momentum)
    seen = [[4.0, 0.0], [2.0, 1.0], [3.0, -1.0]]
    expected = seen[0]
    tracker(detections([seen[0], B], [LEFT, RIGHT], [1, 2]))
    for feats in seen[1:]:
        found = tracker(detections([feats], [LEFT], [1]))
        assert found.pred_track_ids.tolist() == [0]
        expected = [momentum * old + (1 - momentum) * new for old, new in zip(expected, feats)]
    # A product of the features (1, 0) and (0, 1) with the memory reads it.
    probes = detections([[1.0, 0.0], [0.0, 1.0]], [FAR, FAR], [1, 1], [1.0, 1.0])
    fit = tracker.fit(probes)
    for axis in range(2):
        difference = float(fit[axis, 1] - fit[axis, 0])  # of an object and "new": the product
        assert difference == pytest.approx(expected[axis], abs=1e-6)
        other = float(fit[axis, 2] - fit[axis, 0]) + tracker.weight_class
        assert other == pytest.approx(B[axis], abs=1e-6), "another object stays as it was"


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_a_momentum_that_would_never_learn_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match="momentum"):
        OnlineTracker(momentum=momentum)


def test_memory_stays_bounded_and_says_that_it_forgot(caplog: pytest.LogCaptureFixture) -> None:
    tracker = OnlineTracker(max_objects=3)
    with caplog.at_level(logging.WARNING):
        for step in range(20):
            frame = detections([A, [0.0, 0.0]], [LEFT, FAR], [1, 2 + step])
            ids = tracker(frame).pred_track_ids.tolist()
            assert ids == [0, 1 + step]
    assert tracker.num_remembered == 3 and tracker.num_forgotten == 18
    assert len(caplog.records) == 1 and "more than 3 objects" in caplog.text


def test_products_of_nothing_are_one_column_for_new() -> None:
    assert match_logits(torch.ones(2, 3), torch.ones(0, 3)).tolist() == [[0.0], [0.0]]


def test_reference_index_counts_from_one_behind_new() -> None:
    index = reference_index(torch.tensor([4, 8, 6, 4]), torch.tensor([6, 4]))
    assert index.tolist() == [2, 0, 1, 2]
    assert reference_index(torch.tensor([4]), torch.tensor([], dtype=torch.int64)).tolist() == [0]


def test_the_loss_is_the_mean_over_boxes_then_over_images() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(3, 4, dtype=torch.float64)
    known = [torch.randn(2, 4, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)]
    matched = Assignment(
        image_idx=torch.tensor([0, 0, 1]),
        src_idx=torch.tensor([5, 7, 0]),
        tgt_idx=torch.tensor([1, 0, 2]),
        sizes=(2, 1),
    )
    track_ids = [torch.tensor([11, 12]), torch.tensor([13])]
    known_ids = [torch.tensor([12, 10]), torch.tensor([13])]
    loss = TrackLoss(weight=3.0)(embeddings, matched, track_ids, known, known_ids)

    def entropy(box: int, image: int, target: int) -> float:
        logits = [0.0] + [float(embeddings[box] @ other) for other in known[image]]
        return math.log(sum(math.exp(value) for value in logits)) - logits[target]

    # Box 0 shows track 12, the first of its reference; box 1 shows 11, which is not there.
    per_image = (entropy(0, 0, 1) + entropy(1, 0, 0)) / 2, entropy(2, 1, 1)
    assert float(loss) == pytest.approx(3.0 * sum(per_image) / 2, rel=1e-5)


def test_frames_without_objects_give_a_zero_loss_with_gradients() -> None:
    embeddings = torch.zeros(0, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    matched = Assignment(image_idx=none, src_idx=none, tgt_idx=none, sizes=(0,))
    loss = TrackLoss()(embeddings, matched, [none], [torch.zeros(0, 4)], [none])
    loss.backward()
    assert float(loss) == 0 and embeddings.grad is not None


def test_the_head_is_two_layers_on_pooled_features() -> None:
    head = TrackHead(
        embed_dim=8, box_features=BoxFeatures(resolution=3, strides=[4]), track_dim=16
    ).double()
    features = [torch.randn(2, 8, 12, 12, dtype=torch.float64)]
    boxes = torch.tensor([[4.0, 4, 28, 28], [0, 0, 48, 48]], dtype=torch.float64)
    image_idx = torch.tensor([1, 0])
    pooled = head.box_features(features, boxes, image_idx).flatten(1)
    first, _, last = head.layers
    expected = (pooled @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
    for masks in (torch.zeros(2, 6, 6), torch.ones(2, 6, 6)):
        torch.testing.assert_close(head(features, boxes, image_idx, masks), expected)
    assert first.weight.std().item() == pytest.approx(0.01, rel=0.1) and not first.bias.any()


def two_objects_in_one_box() -> tuple[list[Tensor], Tensor, Tensor]:
    """A level whose left half is one object's and whose right half another's, both with one box."""
    level = torch.zeros(1, 2, 16, 16, dtype=torch.float64)
    level[:, 0, :, :8], level[:, 1, :, 8:] = 5.0, 7.0
    masks = torch.zeros(2, 28, 28, dtype=torch.float64)
    masks[0, :, :8], masks[1, :, 20:] = 1.0, 1.0
    return [level], torch.tensor([[0.0, 0.0, 64.0, 64.0]] * 2, dtype=torch.float64), masks


def test_masks_tell_apart_objects_whose_boxes_are_one() -> None:
    features, boxes, masks = two_objects_in_one_box()
    image_idx = torch.tensor([0, 0])
    by_pooling = {}
    for pooling in ("cells", "mask"):
        head = TrackHead(
            embed_dim=2,
            box_features=BoxFeatures(resolution=14, strides=[4]),
            track_dim=6,
            pooling=pooling,
        ).double()
        by_pooling[pooling] = head, head(features, boxes, image_idx, masks)
    _, (one, other) = by_pooling["cells"]
    assert torch.equal(one, other)
    head, embeddings = by_pooling["mask"]
    # Far from the border between them there are no other features than the object's own.
    own = torch.tensor([[5.0, 0.0], [0.0, 7.0]], dtype=torch.float64)
    torch.testing.assert_close(embeddings, head.layers(own))


def test_a_cell_weighs_as_much_as_the_mask_covers_of_it() -> None:
    rng = np.random.RandomState(0)
    cells, masks = rng.randn(3, 16, 5), rng.rand(3, 8, 8)
    masks[2] = 0
    found = mean_over_mask(torch.tensor(cells), torch.tensor(masks))
    for box in range(3):
        total, weights = np.zeros(5), 0.0
        for row in range(8):
            for column in range(8):
                total += masks[box, row, column] * cells[box, 4 * (row // 2) + column // 2]
                weights += masks[box, row, column]
        expected = total / weights if weights else total
        np.testing.assert_allclose(found[box].numpy(), expected, atol=1e-9)


def test_embeddings_of_one_length_give_cosines() -> None:
    torch.manual_seed(0)
    features = [torch.randn(1, 4, 16, 16, dtype=torch.float64)]
    boxes = torch.tensor([[0.0, 0, 40, 40], [8, 8, 64, 64], [0, 30, 30, 64]], dtype=torch.float64)
    image_idx, masks = torch.zeros(3, dtype=torch.int64), torch.rand(3, 6, 6)
    head = TrackHead(embed_dim=4, box_features=BoxFeatures(resolution=3, strides=[4]), track_dim=8)
    free = head.double()(features, boxes, image_idx, masks)
    head.max_product = 12.0
    logits = match_logits(*[head(features, boxes, image_idx, masks)] * 2)
    for i in range(3):
        assert float(logits[i, 1 + i]) == pytest.approx(12.0)
        for j in range(3):
            lengths = float(free[i] @ free[i]) * float(free[j] @ free[j])
            cosine = float(free[i] @ free[j]) / math.sqrt(lengths)
            assert float(logits[i, 1 + j]) == pytest.approx(12.0 * cosine)


@pytest.mark.parametrize("options", [{"pooling": "box"}, {"max_product": 0.0}])
def test_a_head_that_cannot_be_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TrackHead(embed_dim=4, box_features=BoxFeatures(resolution=3), **options)
