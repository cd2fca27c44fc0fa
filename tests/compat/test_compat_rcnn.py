"""The whole two-stage detector: seeded weights, losses, gradients and detections."""

from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from small_rcnn import fingerprint, names_and_shapes, small_batch, small_config, small_model

LOSSES = ["loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"]
PREDICTOR = "roi_heads.box_predictor"
VARIANTS: dict[str, dict[str, Any]] = {
    "standard": {},
    "agnostic": {
        f"{PREDICTOR}.cls_agnostic_bbox_reg": True,
        "roi_heads.mask_head.num_classes": 1,
        "roi_heads.box_pooler.pooler_type": "ROIAlign",
    },
    "boxes_as_losses": {
        f"{PREDICTOR}.box_reg_loss_type": "giou",
        f"{PREDICTOR}.use_sigmoid_ce": True,
        f"{PREDICTOR}.loss_weight": 2.0,
        "proposal_generator.box_reg_loss_type": "ciou",
        "proposal_generator.head.conv_dims": [-1, 8],
        "roi_heads.train_on_pred_boxes": True,
    },
    "smooth": {
        f"{PREDICTOR}.smooth_l1_beta": 0.5,
        "proposal_generator.smooth_l1_beta": 0.1,
        "proposal_generator.anchor_boundary_thresh": 0,
        "proposal_generator.min_box_size": 6,
        "backbone.fuse_type": "avg",
        "backbone.square_pad": 128,
    },
}


def full_size_config() -> Any:
    """Mask R-CNN with ResNet-50 and 80 classes."""
    config = small_config()
    bottom_up = config.backbone.bottom_up
    bottom_up.stem = L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN")
    bottom_up.stages = L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN")
    config.backbone.out_channels = config.proposal_generator.head.in_channels = 256
    heads = config.roi_heads
    heads.num_classes = 80
    heads.box_head.update(conv_dims=[], fc_dims=[1024, 1024])
    heads.box_head.input_shape = L(ShapeSpec)(channels=256, height=7, width=7)
    heads.box_predictor.input_shape = L(ShapeSpec)(channels=1024)
    heads.mask_head.update(conv_dims=[256] * 5)
    heads.mask_head.input_shape = L(ShapeSpec)(channels=256, height=14, width=14)
    return config


def test_full_size_state_dict_equals_that_of_the_real_package(stored):
    with torch.device("meta"):
        lines = names_and_shapes(instantiate(full_size_config()))
    answers = stored("rcnn_names_r50_fpn", {"lines": lines})
    assert lines == answers["lines"].tolist()
    assert len(lines) == 307


@pytest.mark.parametrize("variant", VARIANTS)
def test_seeded_training_step_equals_that_of_the_real_package(stored, variant):
    fresh = small_model(VARIANTS[variant], spread=False)
    arrays: dict[str, Any] = {"lines": names_and_shapes(fresh)}
    arrays["weights"] = fingerprint(fresh.state_dict())
    model = small_model(VARIANTS[variant])
    torch.manual_seed(1)
    with EventStorage() as storage:
        losses = model(small_batch())
    assert list(losses) == LOSSES
    arrays["losses"] = [losses[name].item() for name in LOSSES]
    arrays["logged"] = [value for _, (value, _) in sorted(storage.latest().items())]
    arrays["names"] = sorted(storage.latest())
    sum(losses.values()).backward()
    arrays["gradients"] = fingerprint(
        {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    )
    answers = stored(f"rcnn_train_{variant}", arrays)
    for name in ("lines", "names"):
        assert list(arrays[name]) == answers[name].tolist()
    np.testing.assert_allclose(arrays["weights"], answers["weights"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(arrays["losses"], answers["losses"], rtol=1e-4)
    np.testing.assert_allclose(arrays["logged"], answers["logged"], rtol=1e-3, atol=1e-3)
    sizes = answers["gradients"][:, 1]
    assert (
        np.abs(np.array(arrays["gradients"]) - answers["gradients"]).max(1) < 1e-3 * sizes
    ).all()
    assert (sizes > 0).all()


def described(outputs: list[Instances]) -> np.ndarray:
    """One row per detection: image, class, score, box, pixels and centre of its mask."""
    rows = []
    for image, found in enumerate(outputs):
        for i in range(len(found)):
            mask = found.pred_masks[i].double()
            y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in mask.shape), indexing="ij")
            area = mask.sum()
            centre = [((v * mask).sum() / area.clamp(min=1)).item() for v in (x, y)]
            box = found.pred_boxes.tensor[i].tolist()
            label = [image, found.pred_classes[i].item(), found.scores[i].item()]
            rows.append([*label, *box, area.item(), *centre])
    return np.array(rows)


@pytest.mark.parametrize("variant", ["standard", "agnostic", "smooth"])
def test_seeded_detections_equal_those_of_the_real_package(stored, variant):
    model = small_model(VARIANTS[variant]).eval()
    batch = small_batch()
    with torch.no_grad():
        outputs = [output["instances"] for output in model(batch)]
    for found, sample in zip(outputs, batch):
        assert found.image_size == (sample["height"], sample["width"])
        assert found.pred_masks.dtype == torch.bool and 5 < len(found) <= 20
        assert found.pred_masks.shape[1:] == found.image_size
    rows = described(outputs)
    answers = stored(f"rcnn_test_{variant}", {"rows": rows})["rows"]
    assert len(np.unique(rows[:, 1])) > 1 and np.ptp(rows[:, 2]) > 0.1
    np.testing.assert_array_equal(rows[:, :2], answers[:, :2])
    np.testing.assert_allclose(rows[:, 2], answers[:, 2], rtol=1e-3)
    np.testing.assert_allclose(rows[:, 3:7], answers[:, 3:7], atol=0.05)
    # A pixel whose mask value is within rounding of 1/2 may flip on another machine.
    np.testing.assert_allclose(rows[:, 7], answers[:, 7], atol=3)
    np.testing.assert_allclose(rows[:, 8:], answers[:, 8:], atol=0.5)


def test_one_step_of_sgd_changes_the_losses_as_in_the_real_package(stored):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    history = []
    torch.manual_seed(2)
    with EventStorage():
        for _ in range(3):
            losses = model(small_batch())
            optimizer.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            history.append([losses[name].item() for name in LOSSES])
    answers = stored("rcnn_three_steps", {"history": history})["history"]
    np.testing.assert_allclose(history, answers, rtol=1e-3)
    assert np.abs(np.diff(answers, axis=0)).max() > 1e-3


@pytest.mark.parametrize("counts", [(0, 0), (0,)])
def test_images_without_objects_give_finite_losses(counts):
    model = small_model()
    with EventStorage():
        losses = model(small_batch(counts))
    total = sum(losses.values())
    total.backward()
    assert losses["loss_mask"].item() == losses["loss_box_reg"].item() == 0
    assert losses["loss_rpn_loc"].item() == 0 and 0 < total.item() < 100
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_nan_stops_training_and_gives_no_detections_in_testing():
    model, batch = small_model(), small_batch((2,))
    batch[0]["image"] = torch.full((3, 96, 128), float("nan"))
    with EventStorage(), pytest.raises(FloatingPointError):
        model(batch)
    found = model.eval()(batch)[0]["instances"]
    assert len(found) == 0 and found.pred_masks.shape == (0, 192, 158)


def test_given_boxes_get_masks_only():
    model, batch = small_model().eval(), small_batch((1, 1))
    with torch.no_grad():
        raw = model.inference(batch, do_postprocess=False)
        known = [
            Instances(x.image_size, pred_boxes=x.pred_boxes, pred_classes=x.pred_classes)
            for x in raw
        ]
        again = model.inference(batch, detected_instances=known, do_postprocess=False)
    for first, second, sample in zip(raw, again, batch):
        assert first.image_size == sample["image"].shape[1:]
        assert first.pred_masks.shape == (20, 1, 28, 28)
        torch.testing.assert_close(second.pred_masks, first.pred_masks)
        assert not second.has("scores")


def test_proposals_may_come_with_the_input():
    model, batch = small_model(), small_batch((3,))
    model.proposal_generator = None
    proposals = Instances((96, 128), proposal_boxes=Boxes(batch[0]["instances"].gt_boxes.tensor))
    proposals.objectness_logits = torch.zeros(3)
    batch[0]["proposals"] = proposals
    with EventStorage():
        assert list(model(batch)) == LOSSES[:3]
    found = model.eval()(batch)[0]["instances"]
    assert len(found) > 0


def test_images_are_normalised_then_padded_with_zeros():
    model = small_model()
    batch = small_batch((0, 0))
    images = model.preprocess_image(batch)
    assert images.tensor.shape == (2, 3, 128, 128)
    assert images.image_sizes == [(96, 128), (100, 90)]
    mean, std = (
        np.array(v)[:, None, None] for v in ([103.53, 116.28, 123.675], [57.4, 57.1, 58.4])
    )
    expected = (batch[1]["image"].numpy() - mean) / std
    np.testing.assert_allclose(images.tensor[1, :, :100, :90], expected, rtol=1e-5, atol=1e-6)
    assert not images.tensor[1, :, 100:].any() and not images.tensor[1, :, :, 90:].any()
    assert not any("pixel" in name for name in model.state_dict())
    assert model.device == torch.device("cpu")


def test_pictures_of_training_are_stored_once_a_period():
    model = small_model({"vis_period": 2})
    with EventStorage(start_iter=4) as storage:
        model(small_batch((2,)))
    names = [name for name, _, _ in storage._vis_data]
    assert names == ["Left: GT bounding boxes;  Right: Predicted proposals"]
    assert storage._vis_data[0][1].shape == (3, 96, 256)


def test_pictures_need_to_know_the_order_of_channels():
    with pytest.raises(AssertionError):
        small_model({"vis_period": 2, "input_format": None})
