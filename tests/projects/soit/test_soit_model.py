"""The whole model: gradients, batches, sizes, and what it returns."""

import pytest
import torch
from detectron2.structures import Boxes
from gradients import without_gradient
from soit_model import image_input, small_model, train_step

from queryseg.projects.soit.model import SOIT


@pytest.fixture(scope="module")
def model() -> SOIT:
    return small_model()


OPTIONS = [
    "model.mask_branch.share_head=false",
    "model.mask_branch.num_layers=1",
    "model.mask_branch.num_layers=0",
    "model.mask_branch.encoder.num_layers=0",
    "model.mask_branch.encoder.num_layers=2",
    "model.mask_branch.encoder.num_heads=4",
    "model.mask_branch.encoder.mask_channels=16",
    "model.mask_branch.transformer.num_heads=1",
    "model.mask_branch.transformer.position=none",
    "model.mask_branch.transformer.relu=false",
    "model.queries.kind=learned",
    "model.decoder.refine=false",
    "model.decoder.look_forward_twice=true",
]


@pytest.mark.parametrize(
    ("option", "counts"),
    [
        *(("model.num_classes=6", counts) for counts in ((3, 1), (2, 0), (0, 0))),
        *((option, (2, 0)) for option in OPTIONS),
    ],
)
def test_every_trainable_parameter_gets_a_finite_gradient(
    option: str, counts: tuple[int, int]
) -> None:
    model = small_model(option)
    inputs = [image_input(64, 96, count, seed) for seed, count in enumerate(counts)]
    losses = train_step(model, inputs)
    assert all(loss.isfinite() for loss in losses.values())
    assert without_gradient(model) == []


def test_losses_are_named_by_term_and_layer() -> None:
    losses = train_step(small_model("model.decoder.num_layers=3"), [image_input(64, 64, 2)])
    names = {f"loss_{term}{s}" for term in ("class", "box", "giou") for s in ("_enc", "_0", "_1")}
    names |= {f"loss_{term}_1" for term in ("dice", "bce")}  # the last two of three layers
    names |= {f"loss_{term}" for term in ("class", "box", "giou", "dice", "bce")}
    assert set(losses) == names


def test_pure_detector_has_no_mask_loss_and_no_masks() -> None:
    detector = small_model("model.mask_branch.num_layers=0")
    assert not any("mask" in name for name, _ in detector.named_parameters())
    losses = train_step(detector, [image_input(64, 64, 2)])
    assert not any("dice" in name or "bce" in name for name in losses)
    detector.eval()
    with torch.no_grad():
        assert not detector([image_input(64, 64)])[0]["instances"].has("pred_masks")


def test_empty_images_cost_no_box_and_no_mask_loss(model: SOIT) -> None:
    losses = train_step(model, [image_input(64, 64, 0), image_input(64, 64, 0)])
    for name, loss in losses.items():
        assert float(loss.detach()) > 0 if "class" in name else float(loss.detach()) == 0.0


def test_more_instances_than_queries_train() -> None:
    few = small_model("model.queries.num_queries=3")
    losses = train_step(few, [image_input(64, 64, 7), image_input(64, 64, 2)])
    assert all(loss.isfinite() for loss in losses.values())


def test_images_of_a_batch_are_segmented_as_if_alone(model: SOIT) -> None:
    sizes = [(64, 96), (48, 80), (64, 96), (70, 33)]
    inputs = [image_input(*size, seed=seed) for seed, size in enumerate(sizes)]
    model.eval()
    with torch.no_grad():
        together = model(inputs)
        alone = [model([x])[0] for x in inputs]
    for batch, single in zip(together, alone):
        a, b = batch["instances"], single["instances"]
        assert torch.equal(a.query_idx, b.query_idx) and torch.equal(a.pred_classes, b.pred_classes)
        gap = (a.scores - b.scores).norm() / b.scores.norm()
        assert float(gap) < 1e-5
        assert torch.allclose(a.pred_boxes.tensor, b.pred_boxes.tensor, atol=1e-3)
        assert float((a.pred_masks != b.pred_masks).float().mean()) < 1e-4


def test_image_keeps_its_prediction_beside_a_padded_one(model: SOIT) -> None:
    # What training does: the larger image has no padding and must not notice the smaller one.
    large, small = image_input(64, 96, seed=1), image_input(48, 80, seed=2)
    model.eval()
    with torch.no_grad():
        both = model.predict(model.preprocess([large, small]))
        alone = model.predict(model.preprocess([large]))
    for a, b in (
        (both.class_logits[-1][0], alone.class_logits[-1][0]),
        (both.decoded.boxes[-1][0], alone.decoded.boxes[-1][0]),
        (both.mask_features.maps[0], alone.mask_features.maps[0]),  # type: ignore[union-attr]
    ):
        assert float((a - b).norm() / b.norm()) < 1e-5


def test_padding_is_what_the_batch_needs_and_zero(model: SOIT) -> None:
    small, large = image_input(50, 70, seed=1), image_input(63, 97, seed=2)
    images = model.preprocess([small, large])
    assert images.tensor.shape == (2, 3, 63, 97)
    assert images.tensor[0, :, 50:].eq(0).all() and images.tensor[0, :, :, 70:].eq(0).all()
    expected = (small["image"] - model.pixel_mean) / model.pixel_std
    assert torch.equal(images.tensor[0, :, :50, :70], expected)


@pytest.mark.parametrize(
    "size", [(64, 64), (65, 97), (1, 200), (333, 33), (32, 640), (17, 1), (1, 1)]
)
def test_predictions_keep_their_promises_at_any_size(model: SOIT, size: tuple[int, int]) -> None:
    inputs = image_input(*size)
    inputs["height"], inputs["width"] = 2 * size[0] + 1, size[1] + 3
    model.eval()
    with torch.no_grad():
        instances = model([inputs])[0]["instances"]
    height, width = inputs["height"], inputs["width"]
    assert 0 < len(instances) <= 100
    assert instances.image_size == (height, width)
    assert instances.pred_masks.shape == (len(instances), height, width)
    assert instances.pred_masks.dtype == torch.bool
    assert (instances.scores >= 0).all() and (instances.scores <= 1).all()
    assert (instances.scores.diff() <= 0).all()
    assert (instances.pred_classes >= 0).all() and (instances.pred_classes < 6).all()
    assert isinstance(instances.pred_boxes, Boxes)
    x0, y0, x1, y1 = instances.pred_boxes.tensor.unbind(1)
    assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= width).all() and (y1 <= height).all()


def test_output_size_is_that_of_the_image_unless_stated(model: SOIT) -> None:
    inputs = image_input(40, 60)
    del inputs["height"], inputs["width"]
    model.eval()
    with torch.no_grad():
        assert model([inputs])[0]["instances"].image_size == (40, 60)


def test_one_query_may_be_listed_with_several_classes(model: SOIT) -> None:
    model.eval()
    with torch.no_grad():
        found = model([image_input(64, 64)])[0]["instances"]
    pairs = list(zip(found.query_idx.tolist(), found.pred_classes.tolist()))
    assert len(set(pairs)) == len(pairs) == 100
    assert len(found.query_idx.unique()) <= 30


def test_a_broken_feature_reaches_the_losses_instead_of_stopping_the_matching() -> None:
    model = small_model()

    def break_one_value(_module: object, _inputs: object, features: dict) -> None:
        next(iter(features.values()))[0, 0, 0, 0] = float("nan")

    model.backbone.register_forward_hook(break_one_value)
    with torch.no_grad():
        losses = model.train()([image_input(64, 64, 2), image_input(64, 64, 1)])
    broken = {name for name, loss in losses.items() if not loss.isfinite()}
    assert {"loss_class", "loss_box", "loss_class_enc", "loss_dice", "loss_bce"} <= broken


def test_same_seed_gives_the_same_losses_bit_by_bit() -> None:
    totals = []
    for _ in range(2):
        model = small_model("model.decoder.dropout=0.1")
        torch.manual_seed(3)
        totals.append([train_step(model, [image_input(64, 64, 2)]) for _ in range(2)])
    for first, second in zip(*totals):
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_under_autocast_stay_close_to_float32(dtype: torch.dtype) -> None:
    model = small_model().train()
    inputs = [image_input(64, 96, 3, seed=1), image_input(64, 96, 2, seed=2)]
    totals = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            totals.append(float(torch.stack(list(model(inputs).values())).detach().sum()))
    assert totals[1] == pytest.approx(totals[0], rel=0.05)


def test_a_few_steps_on_two_images_cut_the_loss() -> None:
    model = small_model()
    inputs = [image_input(64, 64, 2, seed) for seed in (1, 2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(25):
        losses = train_step(model, inputs)
        optimizer.step()
        totals.append(float(torch.stack([loss.detach() for loss in losses.values()]).sum()))
    assert sum(totals[-3:]) / 3 < 0.5 * totals[0]
