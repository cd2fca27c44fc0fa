"""Heads on boxes: detections, losses, sampling, masks, post-processing."""

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec, batched_nms
from detectron2.modeling import detector_postprocess
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    ROIHeads,
    select_foreground_proposals,
)
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.modeling.roi_heads.mask_head import (
    BaseMaskRCNNHead,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

SIZE = (50, 70)


def random_boxes(count: int) -> torch.Tensor:
    corner = torch.rand(count, 2) * 45
    return torch.cat([corner, corner + torch.rand(count, 2) * 30 + 4], dim=1)


def logged(storage: EventStorage) -> dict[str, float]:
    return {name: value for name, (value, _) in storage.latest().items()}


@pytest.mark.parametrize("per_class", [True, False])
def test_detections_are_the_best_after_nms_in_each_class(per_class):
    boxes = torch.stack([random_boxes(40) for _ in range(3 if per_class else 1)], dim=1)
    scores = torch.rand(40, 4).softmax(dim=1)
    scores[7, 1], boxes[9] = float("nan"), float("inf")
    (found,), (rows,) = fast_rcnn_inference([boxes.flatten(1)], [scores], [SIZE], 0.25, 0.4, 12)

    usable = [i for i in range(40) if i not in (7, 9)]
    boxes, scores = boxes[usable], scores[usable]
    candidates = [(i, k) for i in range(38) for k in range(3) if scores[i, k] > 0.25]
    limits = torch.tensor([SIZE[1], SIZE[0]] * 2)
    corners = torch.stack([boxes[i, k if per_class else 0] for i, k in candidates])
    corners = corners.clamp(min=0).minimum(limits)
    values = torch.stack([scores[i, k] for i, k in candidates])
    keep = batched_nms(corners, values, torch.tensor([k for _, k in candidates]), 0.4)[:12]
    assert len(candidates) > 40 and len(keep) == 12
    assert [(i, k) for i, k in zip(rows.tolist(), found.pred_classes.tolist())] == [
        candidates[j] for j in keep.tolist()
    ]
    assert torch.equal(found.pred_boxes.tensor, corners[keep])
    assert torch.equal(found.scores, values[keep]) and found.image_size == SIZE


def test_no_limit_on_detections_and_none_at_all():
    boxes, scores = random_boxes(30), torch.tensor([[0.4, 0.6]]).expand(30, 2)
    (found,), _ = fast_rcnn_inference([boxes], [scores], [SIZE], 0.3, 1.0, -1)
    assert len(found) == 30
    (found,), (rows,) = fast_rcnn_inference([boxes], [scores], [SIZE], 0.4, 1.0, -1)
    assert len(found) == len(rows) == 0 and found.pred_boxes.tensor.shape == (0, 4)


def output_layers(**kwargs) -> FastRCNNOutputLayers:
    transform = Box2BoxTransform(weights=(10, 10, 5, 5))
    shape = ShapeSpec(channels=4, height=2, width=1)
    return FastRCNNOutputLayers(shape, box2box_transform=transform, num_classes=3, **kwargs)


def labelled_proposals() -> list[Instances]:
    """Two images: the second without objects, hence without `gt_boxes`."""
    first, second = Instances(SIZE), Instances(SIZE)
    first.proposal_boxes, first.gt_boxes = Boxes(random_boxes(5)), Boxes(random_boxes(5))
    first.gt_classes = torch.tensor([0, 3, 2, 1, 3])
    second.proposal_boxes, second.gt_classes = Boxes(random_boxes(2)), torch.tensor([3, 3])
    return [first, second]


@pytest.mark.parametrize("agnostic", [True, False])
def test_fast_rcnn_losses_follow_their_definitions(agnostic):
    layers = output_layers(cls_agnostic_bbox_reg=agnostic, loss_weight={"loss_box_reg": 2.0})
    proposals = labelled_proposals()
    logits, deltas = layers(torch.randn(7, 4, 2, 1) * 20)
    deltas = deltas + torch.randn_like(deltas)
    assert deltas.shape == (7, 4 if agnostic else 12)
    with EventStorage() as storage:
        losses = layers.losses((logits, deltas), proposals)
    classes = [0, 3, 2, 1, 3, 3, 3]
    log_probs = logits.double().log_softmax(1)
    loss_cls = -np.mean([log_probs[i, k].item() for i, k in enumerate(classes)])
    target = layers.box2box_transform.get_deltas(
        proposals[0].proposal_boxes.tensor, proposals[0].gt_boxes.tensor
    )
    loss_box = 0.0
    for i, k in enumerate(classes[:5]):
        if k < 3:
            chosen = deltas[i] if agnostic else deltas[i, 4 * k : 4 * k + 4]
            loss_box += (chosen - target[i]).abs().sum().item()
    assert losses["loss_cls"].item() == pytest.approx(loss_cls, rel=1e-5)
    assert losses["loss_box_reg"].item() == pytest.approx(2.0 * loss_box / 7, rel=1e-5)
    predicted = logits.argmax(1).numpy()
    hits = predicted == classes
    foreground = np.array(classes) < 3
    values = logged(storage)
    assert values["fast_rcnn/cls_accuracy"] == pytest.approx(hits.mean())
    assert values["fast_rcnn/fg_cls_accuracy"] == pytest.approx(hits[foreground].mean())
    assert values["fast_rcnn/false_negative"] == pytest.approx((predicted[foreground] == 3).mean())


def test_sigmoid_loss_is_summed_over_classes_and_averaged_over_boxes():
    layers = output_layers(use_sigmoid_ce=True)
    proposals = labelled_proposals()
    logits, deltas = torch.randn(7, 4) * 3, torch.zeros(7, 12)
    with EventStorage():
        losses = layers.losses((logits, deltas), proposals)
    total = 0.0
    for row, k in zip(logits.double(), [0, 3, 2, 1, 3, 3, 3]):
        signs = torch.tensor([1.0 if k == j else -1.0 for j in range(3)])
        total += torch.log1p(torch.exp(-signs * row[:3])).sum().item()
    assert losses["loss_cls"].item() == pytest.approx(total / 7, rel=1e-5)
    probs = layers.predict_probs((logits, deltas), proposals)
    assert [len(p) for p in probs] == [5, 2]
    torch.testing.assert_close(torch.cat(list(probs)), logits.sigmoid())


def test_boxes_of_ground_truth_classes_are_picked():
    layers, proposals = output_layers(), labelled_proposals()
    deltas = torch.randn(7, 12)
    picked = layers.predict_boxes_for_gt_classes((torch.zeros(7, 4), deltas), proposals)
    every = torch.cat(list(layers.predict_boxes((torch.zeros(7, 4), deltas), proposals)))
    classes = [0, 2, 2, 1, 2, 2, 2]  # background takes the last class
    expected = [every[i, 4 * k : 4 * k + 4] for i, k in enumerate(classes)]
    assert torch.equal(torch.cat(list(picked)), torch.stack(expected))


def test_initial_scores_and_boxes_are_nearly_neutral():
    layers = FastRCNNOutputLayers(
        64, box2box_transform=Box2BoxTransform(weights=(10, 10, 5, 5)), num_classes=40
    )
    assert layers.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert layers.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert layers.cls_score.weight.shape == (41, 64)
    assert not layers.cls_score.bias.any() and not layers.bbox_pred.bias.any()


def test_box_head_names_its_layers_in_order():
    shape = ShapeSpec(channels=4, height=3, width=5)
    head = FastRCNNConvFCHead(shape, conv_dims=[6, 8], fc_dims=[10, 7], conv_norm="BN")
    assert [n for n, _ in head.named_children()] == [
        "conv1", "conv2", "flatten", "fc1", "fc_relu1", "fc2", "fc_relu2"
    ]  # fmt: skip
    x = torch.randn(2, 4, 3, 5)
    expected = head.conv2(head.conv1(x)).flatten(1)
    expected = head.fc2(head.fc1(expected).relu()).relu()
    torch.testing.assert_close(head(x), expected)
    assert expected.shape == (2, 7)
    assert head.output_shape == ShapeSpec(channels=7)
    conv_only = FastRCNNConvFCHead(shape, conv_dims=[6], fc_dims=[])
    assert conv_only.output_shape == ShapeSpec(channels=6, height=3, width=5)
    with pytest.raises(AssertionError):
        FastRCNNConvFCHead(shape, conv_dims=[], fc_dims=[])


def roi_heads(**kwargs) -> ROIHeads:
    return ROIHeads(
        num_classes=3,
        batch_size_per_image=6,
        positive_fraction=0.5,
        proposal_matcher=Matcher([0.4, 0.6], [0, -1, 1]),
        **kwargs,
    )


@pytest.mark.parametrize("append", [True, False])
def test_sampled_proposals_carry_the_fields_of_their_object(append):
    truth = Instances(SIZE)
    truth.gt_boxes = Boxes([[0.0, 0, 20, 20], [30.0, 10, 60, 40]])
    truth.gt_classes = torch.tensor([2, 0])
    truth.gt_names, truth.other = torch.tensor([7, 8]), torch.tensor([1, 1])
    empty = Instances(SIZE, gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0).long())
    proposals = []
    # IoU with the objects: 1, 0.5 (ignored), 0.81, 0, 0, 0
    good = [[0.0, 0, 20, 20], [0.0, 0, 20, 10], [30, 10, 60, 34.3]]
    far = [[61.0, 41, 69, 49], [1.0, 41, 9, 49], [21.0, 1, 28, 9]]
    for boxes in (good + far, far):
        image = Instances(SIZE, proposal_boxes=Boxes(torch.tensor(boxes)))
        image.objectness_logits = torch.arange(float(len(boxes)))
        proposals.append(image)
    with EventStorage() as storage:
        drawn = roi_heads(proposal_append_gt=append).label_and_sample_proposals(
            proposals, [truth, empty]
        )
    first, second = drawn
    assert first.gt_classes[-3:].tolist() == [3, 3, 3]
    if append:
        assert len(first) == 6 and set(first.gt_classes[:3].tolist()) == {0, 2}
    else:
        assert len(first) == 5 and sorted(first.gt_classes[:2].tolist()) == [0, 2]
    positive = first.gt_classes < 3
    assert torch.equal(first.gt_names[positive] - 7, (first.gt_classes[positive] == 0).long())
    assert first.has("gt_boxes") and not first.has("other")
    assert second.gt_classes.tolist() == [3, 3, 3] and not second.has("gt_boxes")
    values = logged(storage)
    assert values["roi_head/num_fg_samples"] == positive.sum() / 2
    assert values["roi_head/num_bg_samples"] == 3


def test_foreground_is_neither_background_nor_ignored():
    image = Instances(SIZE, gt_classes=torch.tensor([-1, 0, 3, 2]))
    (kept,), (mask,) = select_foreground_proposals([image], bg_label=3)
    assert kept.gt_classes.tolist() == [0, 2] and mask.tolist() == [False, True, False, True]


def mask_targets() -> list[Instances]:
    full = torch.zeros(2, *SIZE, dtype=torch.bool)
    full[0, 10:30, 20:40], full[1, :, :35] = True, True
    first = Instances(SIZE, gt_masks=BitMasks(full), gt_classes=torch.tensor([1, 0]))
    first.proposal_boxes = Boxes([[20.0, 10, 40, 30], [30.0, 10, 40, 20]])
    empty = Instances(SIZE, gt_masks=BitMasks(full[:0]), gt_classes=torch.zeros(0).long())
    empty.proposal_boxes = Boxes(torch.zeros(0, 4))
    return [empty, first]


@pytest.mark.parametrize("channels", [1, 3])
def test_mask_loss_is_the_mean_cross_entropy_of_the_own_class(channels):
    logits = torch.randn(2, channels, 8, 8, requires_grad=True)
    with EventStorage() as storage:
        loss = mask_rcnn_loss(logits, mask_targets())
    # The first box is all mask; the second is mask in its left half.
    targets = torch.ones(2, 8, 8, dtype=torch.float64)
    targets[1, :, 4:] = 0
    own = torch.stack([logits[0, min(1, channels - 1)], logits[1, 0]]).double()
    expected = (torch.log1p(own.exp()) - own * targets).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    wrong = (own > 0) != targets.bool()
    values = logged(storage)
    assert values["mask_rcnn/accuracy"] == pytest.approx(1 - wrong.float().mean().item())
    background = wrong[1, :, 4:].float().mean().item()
    assert values["mask_rcnn/false_positive"] == pytest.approx(background)
    missed = wrong[targets.bool()].float().mean().item()
    assert values["mask_rcnn/false_negative"] == pytest.approx(missed)
    empty_loss = mask_rcnn_loss(logits[:0], mask_targets()[:1])
    assert empty_loss.item() == 0 and empty_loss.requires_grad


def test_soft_mask_targets_count_as_mask_above_one_half():
    class SoftMasks:
        def __len__(self):
            return 2

        def crop_and_resize(self, boxes, size):
            return torch.tensor([0.7, 0.3])[:, None, None].expand(2, size, size)

    image = mask_targets()[1]
    image.gt_masks = SoftMasks()
    with EventStorage() as storage:
        loss = mask_rcnn_loss(torch.ones(2, 1, 8, 8), [image])
    expected = np.log1p(np.e) - 0.5  # the targets' mean is 1/2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logged(storage)["mask_rcnn/accuracy"] == 0.5


def test_mask_pictures_are_stored_once_a_period():
    with EventStorage(start_iter=6) as storage:
        mask_rcnn_loss(torch.zeros(2, 1, 8, 8), mask_targets(), vis_period=3)
        mask_rcnn_loss(torch.zeros(2, 1, 8, 8), mask_targets(), vis_period=4)
    names = [name for name, _, _ in storage._vis_data]
    assert names == [f"Left: mask prediction;   Right: mask GT ({i})" for i in range(2)]
    assert storage._vis_data[0][1].shape == (3, 8, 16)


@pytest.mark.parametrize("channels", [1, 3])
def test_predicted_masks_are_probabilities_of_the_predicted_class(channels):
    logits = torch.randn(3, channels, 4, 4)
    images = [Instances(SIZE, pred_classes=torch.tensor(c).long()) for c in ([2, 0], [], [1])]
    mask_rcnn_inference(logits, images)
    assert [tuple(x.pred_masks.shape) for x in images] == [(2, 1, 4, 4), (0, 1, 4, 4), (1, 1, 4, 4)]
    for i, (image, row, k) in enumerate([(0, 0, 2), (0, 1, 0), (2, 0, 1)]):
        expected = logits[i, k if channels > 1 else 0].sigmoid()
        torch.testing.assert_close(images[image].pred_masks[row, 0], expected)


def test_mask_head_doubles_the_size_and_names_its_layers():
    shape = ShapeSpec(channels=4, height=5, width=5)
    head = MaskRCNNConvUpsampleHead(
        shape, num_classes=3, conv_dims=[6, 6, 8], conv_norm="BN", loss_weight=2.0
    )
    assert [n for n, _ in head.named_children()] == [
        "mask_fcn1", "mask_fcn2", "deconv", "deconv_relu", "predictor"
    ]  # fmt: skip
    x = torch.randn(2, 4, 5, 5)
    hidden = head.deconv(head.mask_fcn2(head.mask_fcn1(x))).relu()
    torch.testing.assert_close(head.layers(x), head.predictor(hidden))
    assert head.layers(x).shape == (2, 3, 10, 10)
    assert head.predictor.weight.std().item() < 0.002 and head.mask_fcn1.bias is None
    with EventStorage():
        doubled = head(x, mask_targets())["loss_mask"]
        loss = mask_rcnn_loss(head.layers(x), mask_targets())
    torch.testing.assert_close(doubled, 2 * loss)
    with pytest.raises(NotImplementedError):
        BaseMaskRCNNHead()(x, [])


def test_postprocessing_scales_clips_drops_and_pastes():
    results = Instances((40, 60), scores=torch.tensor([0.9, 0.8, 0.7]))
    results.pred_boxes = Boxes([[10.0, 5, 30, 25], [70.0, 0, 80, 9], [50.0, 30, 66, 44]])
    results.pred_masks = torch.ones(3, 1, 7, 7)
    scaled = detector_postprocess(results, 80, 90)
    assert scaled.image_size == (80, 90)
    torch.testing.assert_close(scaled.scores, torch.tensor([0.9, 0.7]))
    expected = torch.tensor([[15.0, 10, 45, 50], [75.0, 60, 90, 80]])
    torch.testing.assert_close(scaled.pred_boxes.tensor, expected)
    assert scaled.pred_masks.shape == (2, 80, 90) and scaled.pred_masks.dtype == torch.bool
    assert scaled.pred_masks[0].nonzero().amin(0).tolist() == [10, 15]
    assert scaled.pred_masks[0].nonzero().amax(0).tolist() == [49, 44]
    proposals = Instances((40, 60), proposal_boxes=Boxes([[10.0, 5, 30, 25]]))
    assert detector_postprocess(proposals, 20, 30).proposal_boxes.tensor.tolist() == [
        [5, 2.5, 15, 12.5]
    ]
    with pytest.raises(AssertionError):
        detector_postprocess(Instances((4, 4), scores=torch.zeros(1)), 4, 4)


def test_semantic_postprocessing_cuts_the_padding_before_it_resizes():
    ramp = torch.arange(8.0).expand(2, 6, 8).clone()
    ramp[:, :, 4:] = 1e6
    result = sem_seg_postprocess(ramp, (3, 4), 6, 8)
    assert result.shape == (2, 6, 8)
    # Pixel centres at +0.5, values held at the border.
    expected = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    np.testing.assert_allclose(result[1, 3], expected, rtol=1e-6)
