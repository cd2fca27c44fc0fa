"""Mask Frozen-DETR as a whole: what learns, what does not, and what it returns."""

import copy
import logging
from pathlib import Path

import pytest
import torch
from detector_inputs import image_input
from detectron2.structures import BitMasks
from mask_frozen_model import small_model
from torch.nn.parallel.distributed import DistributedDataParallel

from queryseg.engine.param_groups import get_param_groups
from queryseg.projects.mask_frozen_detr import detection_cache
from queryseg.projects.mask_frozen_detr.detection_cache import DetectionCache
from queryseg.projects.mask_frozen_detr.detections import Detections
from queryseg.projects.mask_frozen_detr.model import MaskFrozenDETR
from queryseg.projects.mask_frozen_detr.regions import OutputSize

ROWS = {
    "final design": (),
    "no image encoder": ("model.mask_network.image_layers=0",),
    "swin": ("model.mask_network.image_block=swin", "model.mask_network.region_block=swin"),
    "two swin": (
        "model.mask_network.image_block=swin",
        "model.mask_network.image_layers=2",
        "model.mask_network.region_block=swin",
        "model.mask_network.region_layers=2",
    ),
    "convnext": (
        "model.mask_network.image_block=convnext",
        "model.mask_network.region_block=convnext",
    ),
    "no region encoder": ("model.mask_network.region_layers=0",),
    "no mapper": ("model.mask_network.hidden_dim=64",),
    "raw neck": ("model.mask_network.neck=raw",),
    "no backbone map": ("model.mask_network.neck=none",),
    "O2O": ("model.mask_network.object_to_object=true",),
    "no FFN": ("model.mask_network.query_ffn=false",),
    "no query encoder": (
        "model.mask_network.query_ffn=false",
        "model.mask_network.box_to_object=false",
    ),
    "roi 8": ("model.mask_network.roi_size=8",),
    "segmenter": ("model.mask_network.head=segmenter",),
    "all cells": ("model.criterion.point_sampler=null",),
    "no scoring": ("model.mask_network.mask_scoring=false",),
    "first encoder layer": ("model.mask_network.encoder_layer=1",),
}


def _step(model: MaskFrozenDETR, counts: tuple[int, ...]) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    inputs = [image_input(64, 96 - 32 * i, count, i) for i, count in enumerate(counts)]
    losses = model(inputs)
    torch.stack(list(losses.values())).sum().backward()
    return losses


@pytest.mark.parametrize("row", ROWS)
def test_mask_network_learns_and_the_detector_does_not(row: str) -> None:
    model = small_model(*ROWS[row])
    before = copy.deepcopy(model.detector.state_dict())
    for counts in ((2, 1), (1, 0), (0, 0)):
        losses = _step(model, counts)
        assert all(value.isfinite() for value in losses.values())
        for name, parameter in model.named_parameters():
            if name.startswith("detector."):
                assert parameter.grad is None and not parameter.requires_grad
            else:
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name
    after = model.detector.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_detector_stays_in_evaluation_mode_and_out_of_optimizer_and_ddp() -> None:
    model = small_model()
    model.train()
    assert model.mask_network.training
    assert not any(module.training for module in model.detector.modules())
    groups = get_param_groups(model, lr=1.0, weight_decay=0.0, lr_multipliers={"detector": 0.1})
    learnt = {id(p) for group in groups for p in group["params"]}
    assert learnt == {id(p) for p in model.mask_network.parameters()}
    assert {group["lr"] for group in groups} == {1.0}
    ignored = set(model._ddp_params_and_buffers_to_ignore)
    assert ignored == {
        *(f"detector.{name}" for name, _ in model.detector.named_parameters()),
        *(f"detector.{name}" for name, _ in model.detector.named_buffers()),
    }
    assert (
        "_ddp_params_and_buffers_to_ignore" in DistributedDataParallel.__init__.__code__.co_consts
    )


def test_detection_stores_no_activations() -> None:
    model = small_model()
    model.train()
    inputs = [image_input(64, 64)]
    _, detected = model.detect(model.detector.preprocess(inputs), inputs)
    tensors = [detected.stage1, detected.position, detected.query_feats, detected.class_probs]
    assert all(x.grad_fn is None for x in [*tensors, *detected.encoder_layers.values()])
    assert list(detected.encoder_layers) == [2]


@pytest.mark.parametrize(("kind", "parts"), [("partial", False), ("full", True)])
def test_fine_tuning_trains_the_parts_it_names(kind: str, parts: bool) -> None:
    model = small_model(f"model.finetune={kind}")
    losses = _step(model, (2, 1))
    assert {"loss_mask", "loss_class", "loss_box_0", "loss_giou_enc"} <= set(losses)
    for name, parameter in model.named_parameters():
        fixed = name.startswith(("detector.backbone.", "detector.projection."))
        if fixed and not parts:
            assert parameter.grad is None, name
        elif parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert model.detector.backbone.training is parts
    assert model.detector.encoder.training
    groups = get_param_groups(model, lr=1.0, weight_decay=0.0, lr_multipliers={"detector": 0.1})
    assert {group["lr"] for group in groups} == {1.0, 0.1}


def test_losses_and_gradients_from_the_cache_are_exactly_those_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, cached = small_model("model.detect_singly=true"), small_model()
    cached.cache = DetectionCache(folder=tmp_path / "kept", num_images=2)
    optimizers = [torch.optim.AdamW(m.mask_network.parameters(), 1e-3) for m in (plain, cached)]
    caplog.set_level(logging.INFO, logger="queryseg")
    asked = []
    detect = cached.detector.detect
    cached.detector.detect = lambda images: asked.append(1) or detect(images)
    for _ in range(3):
        for model, optimizer in zip((plain, cached), optimizers):
            torch.manual_seed(5)
            _step(model, (2, 1))
            optimizer.step()
    assert len(asked) == 2
    assert len(list((tmp_path / "kept").glob("*.pt"))) == 2
    ours, theirs = plain.state_dict(), cached.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert "MiB for an image of 64 x 96" in caplog.text
    assert "GiB for 2 images" in caplog.text


def test_cache_tells_other_weights_and_random_views_apart(tmp_path: Path) -> None:
    first, other = small_model(), small_model(seed=1)
    for model in (first, other):
        model.cache = DetectionCache(folder=tmp_path, num_images=1)
        _step(model, (1,))
    assert len(list(tmp_path.glob("*.pt"))) == 2
    with pytest.raises(RuntimeError, match="Remove random augmentations"):
        _step(first, (1, 1))
    greedy = small_model()
    greedy.cache = DetectionCache(folder=tmp_path / "more", num_images=10**10)
    with pytest.raises(RuntimeError, match=r"takes about [0-9.]+ GiB"):
        _step(greedy, (1,))


def test_cache_needs_a_detector_that_does_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection_cache, "get_dataset_dicts", lambda names: [{"image_id": 1}])
    with pytest.raises(ValueError, match="only if it does not change"):
        small_model("model.finetune=full", f"model.cache.folder={tmp_path}")


def test_batch_gives_what_single_images_give() -> None:
    model = small_model().eval()
    inputs = [image_input(64, 96, seed=1), image_input(64, 96, seed=2)]
    with torch.no_grad():
        for one, joined in zip(inputs, model(inputs)):
            (alone,) = model([one])
            a, b = alone["instances"], joined["instances"]
            torch.testing.assert_close(a.scores, b.scores, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
            assert (a.pred_masks != b.pred_masks).float().mean() < 1e-4


def test_single_detection_does_not_depend_on_the_rest_of_the_batch() -> None:
    model = small_model("model.detect_singly=true")
    inputs = [image_input(64, 96, seed=1), image_input(96, 60, seed=2)]
    model.train()
    _, joined = model.detect(model.detector.preprocess(inputs), inputs)
    assert joined.padding_mask is not None and joined.valid_ratios is not None
    for index, one in enumerate(inputs):
        _, alone = model.detect(model.detector.preprocess([one]), [one])
        assert torch.equal(joined.class_probs[index], alone.class_probs[0])
        assert torch.equal(joined.boxes_cxcywh_norm[index], alone.boxes_cxcywh_norm[0])
        real = ~joined.padding_mask[index]
        assert torch.equal(joined.encoder_layers[2][index][real], alone.encoder_layers[2][0])
        assert torch.equal(joined.position[index][real], alone.position[0])
        height, width = alone.stage1.shape[-2:]
        assert torch.equal(joined.stage1[index, :, :height, :width], alone.stage1[0])
        first, whole = alone.spatial_shapes[0], joined.spatial_shapes[0]
        expected = torch.tensor([first[1] / whole[1], first[0] / whole[0]])
        torch.testing.assert_close(joined.valid_ratios[index, 0], expected)


@pytest.mark.parametrize("size", [(33, 200), (64, 64), (1, 90), (130, 20)])
def test_predictions_keep_their_invariants_at_any_size(size: tuple[int, int]) -> None:
    model = small_model().eval()
    with torch.no_grad():
        (result,) = model([{**image_input(*size, count=0), "height": 75, "width": 111}])
    instances = result["instances"]
    assert len(instances) == 50
    assert instances.pred_masks.shape == (50, 75, 111)
    assert instances.pred_masks.dtype == torch.bool
    boxes = instances.pred_boxes.tensor
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= 111 + 1e-3).all() and (boxes[:, 3] <= 75 + 1e-3).all()
    assert instances.scores.tolist() == sorted(instances.scores.tolist(), reverse=True)
    assert ((instances.scores >= 0) & (instances.scores <= 1)).all()
    assert ((instances.pred_classes >= 0) & (instances.pred_classes < 6)).all()


def test_whole_image_baseline_needs_no_training() -> None:
    model = small_model(
        "model.mask_network.image_layers=0",
        "model.mask_network.region_layers=0",
        "model.mask_network.hidden_dim=64",
        "model.mask_network.neck=raw",
        "model.mask_network.mask_scoring=false",
        "model.mask_network.roi_align=false",
    ).eval()
    assert not list(model.mask_network.parameters())
    inputs = [image_input(64, 96)]
    with torch.no_grad():
        (result,) = model(inputs)
        images = model.detector.preprocess(inputs)
        detected = model.detect(images, inputs)[1]
    instances = result["instances"]
    query = detected.query_feats[0, instances.query_idx[0]]
    finest = detected.encoder_layers[2][0, : 8 * 12].mT.view(1, 64, 8, 12)
    fused = detected.stage1 + torch.nn.functional.interpolate(
        finest, scale_factor=2, mode="bilinear"
    )
    small = (query[None, :, None, None] * fused).sum(1, keepdim=True)
    logits = torch.nn.functional.interpolate(small, scale_factor=4, mode="bilinear")
    assert ((logits[0, 0] > 0) == instances.pred_masks[0]).float().mean() > 0.9999


def test_perfect_masks_in_the_boxes_give_back_the_instances() -> None:
    model = small_model()
    inputs = image_input(120, 160, 2, seed=3)
    targets = model.targets([inputs], model.detector.preprocess([inputs]))
    boxes = inputs["instances"].gt_boxes.tensor
    detections = Detections(
        torch.zeros(2, dtype=torch.int64), torch.arange(2), torch.zeros(2, 64), boxes, boxes
    )
    pooled = model.mask_network.regions.pool(targets.masks.float()[None], detections)
    assert pooled.shape == (2, 16, 16, 2)
    size = OutputSize((120, 160), (120, 160), (240, 320))
    pasted = model.mask_network.regions.paste(torch.full((2, 16, 16), 9.0), boxes, size)
    real = BitMasks(targets.masks).tensor.repeat_interleave(2, 1).repeat_interleave(2, 2)
    for mask, expected in zip(pasted.bool(), real):
        assert (mask & expected).sum() / (mask | expected).sum() > 0.995
