"""The whole model: gradients, batches, sizes, and what it returns."""

import pytest
import torch
from detectron2.structures import Boxes
from fastinst_model import image_input, small_model
from gradients import without_gradient

from queryseg.projects.fastinst.model import FastInst


@pytest.fixture(scope="module")
def model() -> FastInst:
    return small_model()


def _train_step(model: FastInst, inputs: list[dict]) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    losses = model(inputs)
    torch.stack(list(losses.values())).sum().backward()
    return losses


@pytest.mark.parametrize(
    "counts", [(3, 1), (2, 0), (0, 0)], ids=["normal", "one empty", "all empty"]
)
@pytest.mark.parametrize(
    "option",
    [
        "model.gt_guidance=true",
        "model.gt_guidance=false",
        "model.decoder.num_layers=0",
        "model.decoder.num_layers=2",
        "model.decoder.num_aux_queries=0",
        "model.decoder.update=query_then_pixel",
        "model.decoder.update=pixel_only",
        "model.decoder.update=query_only",
        "model.decoder.queries.kind=zero",
        "model.decoder.queries.kind=learned",
        "model.decoder.queries.kind=resized",
        "model.decoder.queries.level=0",
        "model.decoder.positions.kind=sine",
        "model.criterion.activation_loss.target=dense",
        "model.criterion.match_once=true",
        "model.pixel_decoder.kind=fpn",
        "model.pixel_decoder.kind=encoder_fpn",
        "model.pixel_decoder.kind=ms_deform_attn",
    ],
)
def test_every_trainable_parameter_gets_a_finite_gradient(
    option: str, counts: tuple[int, int]
) -> None:
    model = small_model(option)
    inputs = [image_input(64, 96, count, seed) for seed, count in enumerate(counts)]
    losses = _train_step(model, inputs)
    assert all(loss.isfinite() for loss in losses.values())
    assert without_gradient(model) == []


@pytest.mark.parametrize("update", ["pixel_then_query", "pixel_only"])
def test_without_deep_supervision_only_what_the_last_head_needs_is_computed_and_learns(
    update: str,
) -> None:
    model = small_model(
        "model.criterion.deep_supervision=false",
        "model.decoder.num_layers=2",
        f"model.decoder.update={update}",
    )
    model.decoder.guided = None  # not to be called
    losses = _train_step(model, [image_input(64, 96, 2), image_input(64, 96, 0)])
    assert set(losses) == {"loss_ce", "loss_mask", "loss_dice", "loss_proposal"}
    assert without_gradient(model) == []
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[2] for name in trained if name.startswith("decoder.heads")} == {"2"}


def test_a_broken_feature_reaches_the_losses_instead_of_stopping_the_matching() -> None:
    model = small_model()

    def break_one_value(_module: object, _inputs: object, features: dict) -> None:
        next(iter(features.values()))[0, 0, 0, 0] = float("nan")

    model.backbone.register_forward_hook(break_one_value)
    with torch.no_grad():
        losses = model.train()([image_input(64, 64, 2), image_input(64, 64, 1)])
    broken = {name for name, loss in losses.items() if not loss.isfinite()}
    assert {"loss_ce", "loss_mask", "loss_dice"} <= broken


def test_losses_are_named_as_in_the_release() -> None:
    model = small_model("model.decoder.num_layers=2")
    losses = _train_step(model, [image_input(64, 64, 2)])
    suffixes = ["_0", "_1", "_2", "_3", ""]
    terms = ("ce", "mask", "dice")
    assert set(losses) == {f"loss_{t}{s}" for t in terms for s in suffixes} | {"loss_proposal"}


def test_without_deep_supervision_only_the_last_head_learns_masks() -> None:
    model = small_model("model.criterion.deep_supervision=false")
    losses = _train_step(model, [image_input(64, 64, 2)])
    assert set(losses) == {"loss_ce", "loss_mask", "loss_dice", "loss_proposal"}


def test_empty_images_cost_no_mask_loss(model: FastInst) -> None:
    losses = _train_step(model, [image_input(64, 64, 0), image_input(64, 64, 0)])
    for name, loss in losses.items():
        assert float(loss) == 0.0 if "mask" in name or "dice" in name else float(loss) > 0


def test_images_of_a_batch_do_not_change_each_other() -> None:
    model = small_model().eval()
    inputs = [image_input(64, 96, seed=1), image_input(64, 96, seed=2)]
    with torch.no_grad():
        together = model.decoder(
            model.pixel_decoder(model.backbone(model.preprocess(inputs).tensor))
        )
        alone = [
            model.decoder(model.pixel_decoder(model.backbone(model.preprocess([x]).tensor)))
            for x in inputs
        ]
    for index, single in enumerate(alone):
        assert torch.equal(together.queries.pixel_idx[index], single.queries.pixel_idx[0])
        for field in ("class_logits", "mask_logits"):
            a, b = getattr(together.final, field)[index], getattr(single.final, field)[0]
            assert float((a - b).norm() / b.norm()) < 1e-5  # measured 4e-7


def test_padding_of_a_batch_is_a_padded_image(model: FastInst) -> None:
    small, large = image_input(50, 70, seed=1), image_input(64, 96, seed=2)
    images = model.preprocess([small, large])
    assert images.tensor.shape == (2, 3, 64, 96)
    assert images.tensor[0, :, 50:].eq(0).all()
    assert images.tensor[0, :, :, 70:].eq(0).all()
    expected = (small["image"] - model.pixel_mean) / model.pixel_std
    assert torch.equal(images.tensor[0, :, :50, :70], expected)


@pytest.mark.parametrize(
    "size", [(64, 64), (65, 97), (1, 200), (333, 33), (32, 640), (17, 1), (1, 1)]
)
def test_predictions_keep_their_promises_at_any_size(
    model: FastInst, size: tuple[int, int]
) -> None:
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


def test_output_size_is_that_of_the_image_unless_stated(model: FastInst) -> None:
    inputs = image_input(40, 60)
    del inputs["height"], inputs["width"]
    model.eval()
    with torch.no_grad():
        assert model([inputs])[0]["instances"].image_size == (40, 60)


def test_image_with_fewer_cells_than_queries_trains_and_predicts() -> None:
    model = small_model("model.decoder.queries.num_queries=100")
    losses = _train_step(model, [image_input(40, 50, 3)])
    assert all(loss.isfinite() for loss in losses.values())
    model.eval()
    with torch.no_grad():
        assert len(model([image_input(40, 50)])[0]["instances"]) == 100


def test_same_seed_gives_the_same_losses_bit_by_bit() -> None:
    totals = []
    for _ in range(2):
        model = small_model()
        torch.manual_seed(3)
        totals.append([_train_step(model, [image_input(64, 64, 2)]) for _ in range(2)])
    for first, second in zip(*totals):
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_under_autocast_stay_close_to_float32(dtype: torch.dtype) -> None:
    model = small_model().train()
    inputs = [image_input(64, 96, 3, seed=1), image_input(64, 96, 2, seed=2)]
    totals = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            totals.append(float(torch.stack(list(model(inputs).values())).sum()))
    assert totals[1] == pytest.approx(totals[0], rel=0.05)


def test_paper_reuses_the_guiding_assignment_for_the_last_head() -> None:
    for option, same in (("true", True), ("false", False)):
        model = small_model(f"model.criterion.match_once={option}").train()
        inputs = [image_input(64, 96, 3)]
        images = model.preprocess(inputs)
        decoded = model.decoder(model.pixel_decoder(model.backbone(images.tensor)))
        matched = model.criterion.match(decoded, model.targets(inputs, images))
        assert (matched.guiding is matched.stages[-1]) is same
        assert len(matched.stages) == 2


def test_a_few_steps_on_two_images_cut_the_loss_to_a_fifth() -> None:
    model = small_model()
    inputs = [image_input(64, 64, 2, seed) for seed in (1, 2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(25):
        losses = _train_step(model, inputs)
        optimizer.step()
        totals.append(float(torch.stack([loss.detach() for loss in losses.values()]).sum()))
    assert sum(totals[-3:]) / 3 < 0.2 * totals[0]  # measured 0.11
