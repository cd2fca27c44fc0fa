"""QueryInst-VIS: pairs of frames in training, frame after frame in evaluation."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.structures import Instances
from gradients import without_gradient
from queryinst_model import image_input, small_model

from queryseg.projects.queryinst.model import QueryInst
from queryseg.projects.queryinst.vis_model import QueryInstVIS, first_of_each

CONFIG = "queryinst/queryinst_vis_tiny.py"
KEEP_ALL = ("model.min_score=0.0", "model.nms_iou=1.0")
KEY_ALONE = "model.both_frames=false"


def vis_model(*overrides: str) -> QueryInstVIS:
    model = small_model(*overrides, config=CONFIG)
    assert isinstance(model, QueryInstVIS)
    return model


def frame_of(track_ids: list[int], seed: int) -> dict[str, Any]:
    frame = image_input(64, 96, len(track_ids), seed)
    frame["instances"].gt_track_ids = torch.tensor(track_ids, dtype=torch.int64)
    return frame


def pair(key_ids: list[int], reference_ids: list[int], seed: int = 0) -> dict[str, Any]:
    """A key frame and its reference, whose objects have these numbers in the video."""
    return {
        **frame_of(key_ids, 2 * seed),
        "reference": frame_of(reference_ids, 2 * seed + 1),
    }


def with_fixed_statistics(model: QueryInstVIS) -> QueryInstVIS:
    """Training, but no frame of a batch changes another through a norm."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model


def test_the_key_frame_trains_as_an_image_does() -> None:
    model = with_fixed_statistics(vis_model(KEY_ALONE))
    batch = [pair([0, 1, 2], [1, 2], 0), pair([3], [3, 0], 1)]
    with torch.no_grad():
        losses = model(batch)
        alone = QueryInst.forward(model, batch)
    assert set(losses) == {*alone, "loss_track"}
    for name, loss in alone.items():
        assert float(losses[name]) == pytest.approx(float(loss), rel=1e-4), name


def test_track_loss_compares_matched_boxes_with_true_ones_of_the_reference() -> None:
    model = with_fixed_statistics(vis_model("model.track_loss.weight=3.0", KEY_ALONE))
    # Larger embeddings than a fresh head gives, so that the loss is not ln(count + 1) whatever.
    torch.nn.init.normal_(model.track_head.layers[2].weight, std=0.05)
    batch = [pair([4, 7, 9], [9, 4], 0), pair([5], [], 1)]
    with torch.no_grad():
        total = float(model(batch)["loss_track"])
        expected = [expected_track_loss(model, inputs) for inputs in batch]
    assert total == pytest.approx(3.0 * sum(expected) / 2, rel=1e-3)
    assert expected[1] == 0.0, "with an empty reference there is only 'new' to choose from"
    assert expected[0] > 0.1


def test_both_frames_train_as_images_and_each_is_the_key_of_the_other() -> None:
    model = with_fixed_statistics(
        vis_model("model.track_loss.weight=3.0", "model.both_frames=true")
    )
    torch.nn.init.normal_(model.track_head.layers[2].weight, std=0.05)
    batch = [pair([4, 7, 9], [9, 4], 0), pair([5], [6, 5], 1), pair([1, 2], [], 2)]
    with torch.no_grad():
        losses = model(batch)
        images = QueryInst.forward(model, [*batch, *(one["reference"] for one in batch)])
        turned = [{**one["reference"], "reference": one} for one in batch]
        expected = [expected_track_loss(model, inputs) for inputs in (*batch, *turned)]
    assert set(losses) == {*images, "loss_track"}
    for name, loss in images.items():
        assert float(losses[name]) == pytest.approx(float(loss), rel=1e-4), name
    assert expected[5] == 0.0, "a frame without an object has nothing to follow"
    assert float(losses["loss_track"]) == pytest.approx(3.0 * sum(expected) / 6, rel=1e-3)


def expected_track_loss(model: QueryInstVIS, inputs: dict[str, Any]) -> float:
    """Of one pair, box by box: minus the log of the softmax at the right object."""
    reference = inputs["reference"]
    key_features = model.features(model.preprocess([inputs]))
    other_features = model.features(model.preprocess([reference]))
    predictions = model.decoder(key_features, [(64, 96)])
    targets = model.targets([inputs])
    every_stage = model.criterion.match(predictions, targets)
    mask_logits = model.matched_masks(key_features, predictions, every_stage, targets)
    matched = every_stage[-1]
    boxes = predictions[-1].boxes_xyxy_abs[0, matched.src_idx]
    true_boxes, true_masks = reference["instances"].gt_boxes, reference["instances"].gt_masks
    embeddings = model.track_head(
        key_features,
        boxes,
        torch.zeros(len(boxes), dtype=torch.int64),
        mask_logits[len(predictions) - 1].sigmoid(),
    )
    known = model.track_head(
        other_features,
        true_boxes.tensor,
        torch.zeros(len(true_boxes), dtype=torch.int64),
        true_masks.crop_and_resize(true_boxes.tensor, 28),
    )
    known_ids = reference["instances"].gt_track_ids.tolist()
    loss = 0.0
    for embedding, instance in zip(embeddings.tolist(), matched.tgt_idx.tolist()):
        track_id = int(inputs["instances"].gt_track_ids[instance])
        products = [sum(a * b for a, b in zip(embedding, other)) for other in known.tolist()]
        logits = [0.0, *products]
        right = 1 + known_ids.index(track_id) if track_id in known_ids else 0
        loss -= logits[right] - math.log(sum(math.exp(logit) for logit in logits))
    return loss / max(len(boxes), 1)


@pytest.mark.parametrize(
    "batch",
    [
        [pair([0, 1], [1, 0]), pair([2], [2], 1)],
        [pair([0, 1], []), pair([], [0], 1)],
        [pair([], []), pair([], [], 1)],
    ],
    ids=["normal", "one frame empty", "all empty"],
)
@pytest.mark.parametrize("both_frames", ["false", "true"])
def test_every_parameter_gets_a_finite_gradient(
    batch: list[dict[str, Any]], both_frames: str
) -> None:
    model = vis_model(f"model.both_frames={both_frames}").train()
    losses = model(batch)
    assert all(loss.isfinite() for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert without_gradient(model) == []


def frames(sizes: list[tuple[int, int]], **more: Any) -> Iterator[dict[str, Any]]:
    for number, (height, width) in enumerate(sizes):
        yield {**image_input(height, width, seed=number), "frame": number, **more}


def track(model: QueryInstVIS, batch: list[dict[str, Any]]) -> list[Instances]:
    with torch.no_grad():
        return [output["instances"] for output in model.eval()(batch)]


def test_frames_of_a_batch_are_followed_as_one_after_the_other() -> None:
    model = vis_model(*KEEP_ALL)
    clip = [*frames([(64, 96), (64, 96), (96, 64)]), *frames([(64, 96), (64, 96)])]
    together = track(model, clip)
    assert together[0].pred_track_ids.tolist() == list(range(len(together[0])))
    assert together[3].pred_track_ids.tolist() == list(range(len(together[3]))), "a new video"
    for inputs, one in zip(clip, together):
        (alone,) = track(model, [inputs])
        assert not alone.has("track_feats")
        assert torch.equal(one.pred_track_ids, alone.pred_track_ids)
        assert torch.equal(one.query_idx, alone.query_idx)
        assert float((one.scores - alone.scores).abs().max()) < 1e-5


def test_images_without_a_number_are_videos_of_their_own() -> None:
    model = vis_model(*KEEP_ALL)
    for _ in range(2):
        (found,) = track(model, [image_input(64, 96)])
        assert found.pred_track_ids.tolist() == list(range(len(found)))


def test_each_query_is_one_detection_of_at_least_the_lowest_score() -> None:
    model = vis_model(*KEEP_ALL)
    (inputs,) = frames([(64, 96)])
    with torch.no_grad():
        features = model.eval().features(model.preprocess([inputs]))
        logits = model.decoder(features, [(64, 96)])[-1].class_logits[0]
    best_probs, best_classes = logits.sigmoid().max(dim=1)
    (found,) = track(model, [inputs])
    assert len(set(found.query_idx.tolist())) == len(found)
    assert torch.equal(found.pred_classes, best_classes[found.query_idx])
    assert torch.allclose(found.scores, best_probs[found.query_idx])
    model.min_score = float(found.scores.median())
    (strict,) = track(model, [inputs])
    assert len(strict) == int((found.scores >= model.min_score).sum()) < len(found)


def test_a_doubled_detection_is_left_out_before_it_starts_a_track() -> None:
    masks = torch.zeros(4, 10, 10, dtype=torch.bool)
    masks[0, :4], masks[1, :5], masks[2, :8], masks[3, 9:] = True, True, True, True
    found = Instances(
        (10, 10), pred_masks=masks, scores=torch.tensor([0.6, 0.9, 0.5, 0.3]), place=torch.arange(4)
    )
    model = vis_model("model.nms_iou=0.7")
    # IoU with the best: 4 of 5 rows, and 5 of 8.
    assert model.without_doubles(found).place.tolist() == [1, 2, 3]
    model.nms_iou = 0.6
    assert model.without_doubles(found).place.tolist() == [1, 3]
    model.nms_iou = 1.0
    assert model.without_doubles(found).place.tolist() == [0, 1, 2, 3]


def test_first_of_each_finds_what_was_not_there_before() -> None:
    generator = torch.Generator().manual_seed(0)
    for length in (0, 1, 2, 30):
        values = torch.randint(0, 12, (length,), generator=generator)
        expected = [value not in values[:place].tolist() for place, value in enumerate(values)]
        assert first_of_each(values).tolist() == expected


def test_true_boxes_are_embedded_frame_by_frame() -> None:
    model = vis_model().eval()
    batch = [frame_of([0, 1], 0), frame_of([], 1), frame_of([5], 2)]
    with torch.no_grad():
        features = model.features(model.preprocess(batch))
        together = model.embeddings_of_truth(features, batch)
        assert [len(own) for own in together] == [2, 0, 1]
        for inputs, own in zip(batch, together):
            alone = model.embeddings_of_truth(model.features(model.preprocess([inputs])), [inputs])
            assert torch.allclose(own, alone[0], atol=1e-5)
