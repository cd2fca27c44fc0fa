"""The whole model: gradients, batches, sizes, and what it returns."""

from typing import Any

import pytest
import torch
from detectron2.structures import Boxes
from gradients import without_gradient
from queryinst_model import image_input, small_model

from queryseg.projects.queryinst.model import QueryInst


@pytest.fixture(scope="module")
def model() -> QueryInst:
    return small_model()


def _train_step(model: QueryInst, inputs: list[dict]) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    losses = model(inputs)
    torch.stack(list(losses.values())).sum().backward()
    return losses


def _segment(model: QueryInst, inputs: list[dict]) -> list[Any]:
    model.eval()
    with torch.no_grad():
        return [output["instances"] for output in model(inputs)]


OPTIONS = [
    "model.mask_branch.dynamic=true",
    "model.mask_branch.dynamic=false",
    "model.mask_branch.parallel=false",
    "model.mask_branch.flow=htc",
    "model.mask_branch.flow=htc model.mask_branch.dynamic=false",
    "model.mask_branch.init=as_intended",
    "model.decoder.share_query=false",
    "model.decoder.share_msa=false",
    "model.decoder.share_query=false model.decoder.share_msa=false",
    "model.decoder.num_stages=1",
    "model.decoder.box_init=image",
]


@pytest.mark.parametrize(
    "counts", [(3, 1), (2, 0), (0, 0)], ids=["normal", "one empty", "all empty"]
)
@pytest.mark.parametrize("option", OPTIONS)
def test_every_trainable_parameter_gets_a_finite_gradient(
    option: str, counts: tuple[int, int]
) -> None:
    model = small_model(*option.split())
    inputs = [image_input(64, 96, count, seed) for seed, count in enumerate(counts)]
    losses = _train_step(model, inputs)
    assert all(loss.isfinite() for loss in losses.values())
    assert without_gradient(model) == []


def test_frozen_stages_and_statistics_of_the_backbone_stay() -> None:
    model = small_model(config="queryinst/queryinst_r50_100q_3x.py")
    before = {name: value.clone() for name, value in model.backbone.named_buffers()}
    _train_step(model, [image_input(64, 96, 2)])
    after = dict(model.backbone.named_buffers())
    assert all(torch.equal(before[name], after[name]) for name in before)
    trained = {name for name, p in model.backbone.bottom_up.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("stem.", "res2.")) for name in trained)
    assert "res3.0.conv1.norm.weight" in trained
    assert all(p.grad is not None for p in model.backbone.bottom_up.parameters() if p.requires_grad)


def test_losses_are_named_by_term_and_stage() -> None:
    losses = _train_step(small_model(), [image_input(64, 64, 2)])
    terms = ("cls", "bbox", "iou", "mask")
    assert set(losses) == {f"loss_{term}_{stage}" for term in terms for stage in range(3)}


def test_without_parallel_supervision_only_the_last_stage_learns_masks() -> None:
    model = small_model("model.mask_branch.parallel=false")
    losses = _train_step(model, [image_input(64, 64, 2)])
    assert {name for name in losses if "mask" in name} == {"loss_mask_2"}
    assert {name for name in losses if "cls" in name} == {f"loss_cls_{s}" for s in range(3)}


def test_images_without_objects_cost_class_loss_only(model: QueryInst) -> None:
    losses = _train_step(model, [image_input(64, 64, 0), image_input(64, 64, 0)])
    for name, loss in losses.items():
        assert float(loss) > 0 if "cls" in name else float(loss) == 0.0


def test_boxes_get_no_gradient_from_masks_and_little_from_later_stages() -> None:
    model = small_model()
    model.train()
    losses = model([image_input(64, 96, 3)])
    late = [loss for name, loss in losses.items() if "mask" in name or name.endswith(("_1", "_2"))]
    boxes = model.decoder.proposals.boxes_cxcywh_norm
    torch.stack(late).sum().backward(retain_graph=True)
    assert boxes.grad is None
    (losses["loss_bbox_0"] + losses["loss_iou_0"]).backward()
    assert int((boxes.grad.abs().sum(1) > 0).sum()) == 3  # the matched queries


def test_a_broken_feature_reaches_the_losses_instead_of_stopping_the_matching() -> None:
    model = small_model()

    def break_one_value(_module: object, _inputs: object, features: dict) -> None:
        next(iter(features.values()))[0, 0, 0, 0] = float("nan")

    model.backbone.register_forward_hook(break_one_value)
    with torch.no_grad():
        losses = model.train()([image_input(64, 64, 2), image_input(64, 64, 1)])
    broken = {name for name, loss in losses.items() if not loss.isfinite()}
    assert {"loss_cls_2", "loss_bbox_2", "loss_mask_2"} <= broken


def test_broken_predictions_give_instances_with_empty_masks() -> None:
    model = small_model()
    torch.nn.init.constant_(model.decoder.stages[-1].box_head.box_embed.bias, float("nan"))
    (instances,) = _segment(model, [image_input(64, 64)])
    assert len(instances) == 9
    assert not instances.pred_masks.any()


def test_images_of_a_batch_do_not_change_each_other() -> None:
    model = small_model()
    inputs = [image_input(64, 96, seed=seed) for seed in (1, 2, 3)]
    together = _segment(model, inputs)
    for one, single_input in zip(together, inputs):
        (alone,) = _segment(model, [single_input])
        assert torch.equal(one.pred_classes, alone.pred_classes)
        assert torch.equal(one.query_idx, alone.query_idx)
        for a, b in ((one.scores, alone.scores), (one.pred_boxes.tensor, alone.pred_boxes.tensor)):
            assert float((a - b).norm() / b.norm()) < 1e-5  # measured 3e-7
        assert float((one.pred_masks != alone.pred_masks).float().mean()) < 1e-4


def test_images_of_other_sizes_in_a_batch_change_nothing() -> None:
    model = small_model()
    inputs = [image_input(64, 96, seed=1), image_input(40, 50, seed=2), image_input(33, 96, seed=3)]
    together = _segment(model, inputs)
    for one, single_input in zip(together, inputs):
        (alone,) = _segment(model, [single_input])
        assert one.image_size == alone.image_size
        assert torch.allclose(one.scores, alone.scores, rtol=1e-5)
        assert torch.equal(one.pred_classes, alone.pred_classes)


def test_only_the_last_mask_head_runs_in_inference(model: QueryInst) -> None:
    ran: list[int] = []
    handles = [
        model.mask_branch.head(stage).register_forward_hook(
            lambda *_, stage=stage: ran.append(stage)
        )
        for stage in range(3)
    ]
    _segment(model, [image_input(64, 64)])
    for handle in handles:
        handle.remove()
    assert ran == [2]


def test_mask_logits_of_a_class_are_its_channel_of_all_logits(model: QueryInst) -> None:
    head = model.mask_branch.head(1)
    upsampled = torch.randn(5, 32, 6, 6)
    labels = torch.tensor([0, 5, 3, 3, 1])
    every = head.classifier(upsampled)
    expected = torch.stack([every[index, label] for index, label in enumerate(labels)])
    torch.testing.assert_close(head.logits_of(upsampled, labels), expected)


def test_a_query_with_several_classes_has_a_mask_for_each() -> None:
    model = small_model("model.max_detections=54")  # every class of every query
    (instances,) = _segment(model, [image_input(64, 64)])
    assert len(instances) == 54
    assert sorted(instances.query_idx.tolist()) == sorted(list(range(9)) * 6)
    first = instances.query_idx == 0
    assert instances.pred_classes[first].sort().values.tolist() == list(range(6))
    boxes = instances.pred_boxes.tensor[first]
    assert torch.equal(boxes, boxes[:1].expand_as(boxes))


def test_boxes_leave_the_image_and_masks_are_pasted_with_them() -> None:
    model = small_model()
    for stage in model.decoder.stages:
        torch.nn.init.zeros_(stage.box_head.box_embed.weight)
        stage.box_head.box_embed.bias.data = torch.tensor([0.0, 0.0, 0.4, 0.4])
    (free,) = _segment(model, [image_input(64, 96)])
    x0, y0, x1, y1 = free.pred_boxes.tensor.unbind(1)
    assert bool(((x0 < 0) | (y0 < 0)).any()) and bool(((x1 > 96) | (y1 > 64)).any())
    model.clip_boxes = True
    (clipped,) = _segment(model, [image_input(64, 96)])
    assert torch.equal(clipped.pred_masks, free.pred_masks)
    inside = free.pred_boxes.clone()
    inside.clip((64, 96))
    assert torch.equal(clipped.pred_boxes.tensor, inside.tensor)


@pytest.mark.parametrize(
    "size", [(64, 64), (65, 97), (1, 200), (333, 33), (32, 640), (17, 1), (1, 1)]
)
def test_predictions_keep_their_promises_at_any_size(
    model: QueryInst, size: tuple[int, int]
) -> None:
    inputs = image_input(*size)
    inputs["height"], inputs["width"] = 2 * size[0] + 1, size[1] + 3
    (instances,) = _segment(model, [inputs])
    height, width = inputs["height"], inputs["width"]
    assert len(instances) == 9
    assert instances.image_size == (height, width)
    assert instances.pred_masks.shape == (len(instances), height, width)
    assert instances.pred_masks.dtype == torch.bool
    assert (instances.scores >= 0).all() and (instances.scores <= 1).all()
    assert (instances.scores.diff() <= 0).all()
    assert (instances.pred_classes >= 0).all() and (instances.pred_classes < 6).all()
    assert isinstance(instances.pred_boxes, Boxes)
    assert instances.pred_boxes.tensor.isfinite().all()


def test_output_size_is_that_of_the_image_unless_stated(model: QueryInst) -> None:
    inputs = image_input(40, 60)
    del inputs["height"], inputs["width"]
    assert _segment(model, [inputs])[0].image_size == (40, 60)


def test_output_of_another_size_has_the_same_boxes_in_its_pixels(model: QueryInst) -> None:
    inputs = image_input(64, 96)
    (same,) = _segment(model, [inputs])
    (larger,) = _segment(model, [{**inputs, "height": 192, "width": 192}])
    factor = torch.tensor([2.0, 3.0, 2.0, 3.0])
    torch.testing.assert_close(larger.pred_boxes.tensor, same.pred_boxes.tensor * factor)


def test_more_instances_than_queries_train_through() -> None:
    model = small_model("model.decoder.num_queries=2")
    losses = _train_step(model, [image_input(64, 64, 5)])
    assert all(loss.isfinite() for loss in losses.values())


def test_same_seed_gives_the_same_losses_bit_by_bit() -> None:
    totals = []
    for _ in range(2):
        model = small_model()
        totals.append([_train_step(model, [image_input(64, 64, 2)]) for _ in range(2)])
    for first, second in zip(*totals):
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_under_autocast_stay_close_to_float32(dtype: torch.dtype) -> None:
    model = small_model().train()
    inputs = [image_input(64, 96, 3, seed=1), image_input(64, 96, 2, seed=2)]
    totals = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            losses = model(inputs)
            totals.append(float(torch.stack(list(losses.values())).sum().detach()))
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert totals[1] == pytest.approx(totals[0], rel=0.05)


def test_a_few_steps_on_two_images_cut_the_loss_to_two_thirds() -> None:
    model = small_model()
    inputs = [image_input(64, 64, 2, seed) for seed in (1, 2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    totals = []
    for _ in range(30):
        losses = _train_step(model, inputs)
        optimizer.step()
        totals.append(float(torch.stack([loss.detach() for loss in losses.values()]).sum()))
    assert sum(totals[-3:]) / 3 < 0.67 * totals[0]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
