"""The whole model: gradients, batches, sizes, and what it returns."""

import pytest
import torch
from gradients import without_gradient
from transfiner_model import image_input, small_model, train_step

from queryseg.projects.mask_transfiner.model import MaskTransfiner

TERMS = {"cls", "box_reg", "rpn_cls", "rpn_loc"}
TERMS |= {"mask", "mask_uncertain", "mask_refine", "semantic", "bound"}


@pytest.fixture(scope="module")
def model() -> MaskTransfiner:
    return small_model()


@pytest.mark.parametrize("counts", [(3, 1), (2, 0), (0, 0)])
@pytest.mark.parametrize("option", ["num_classes=6", "roi_heads.mask_head.refiner=null"])
def test_every_trainable_parameter_gets_a_finite_gradient(
    option: str, counts: tuple[int, int]
) -> None:
    model = small_model(f"model.{option}")
    inputs = [image_input(64, 96, count, seed) for seed, count in enumerate(counts)]
    losses = train_step(model, inputs)
    refined = set() if "refiner" in option else {"mask_uncertain", "mask_refine"}
    assert {f"loss_{term}" for term in TERMS - {"mask_uncertain", "mask_refine"} | refined} == set(
        losses
    )
    assert all(loss.isfinite() for loss in losses.values())
    assert without_gradient(model) == []


def test_a_batch_without_objects_costs_nothing_in_the_mask_head() -> None:
    losses = train_step(small_model(), [image_input(64, 64, 0), image_input(48, 64, 0)])
    for name in ("mask", "mask_uncertain", "mask_refine", "bound"):
        assert float(losses[f"loss_{name}"].detach()) == 0.0
    assert float(losses["loss_semantic"].detach()) > 0  # all of it is background


def test_images_of_a_batch_are_segmented_as_if_alone(model: MaskTransfiner) -> None:
    inputs = [image_input(64, 96, seed=seed) for seed in range(3)]
    model.eval()
    with torch.no_grad():
        together = model(inputs)
        alone = [model([x])[0] for x in inputs]
    for batch, single in zip(together, alone):
        a, b = batch["instances"], single["instances"]
        assert torch.equal(a.pred_classes, b.pred_classes)
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, rtol=0, atol=1e-3)
        assert float((a.pred_masks != b.pred_masks).float().mean()) < 1e-4


@pytest.mark.parametrize(
    "size", [(64, 64), (65, 97), (1, 200), (333, 33), (32, 640), (17, 1), (1, 1), (64, 1333)]
)
def test_predictions_keep_their_promises_at_any_size(
    model: MaskTransfiner, size: tuple[int, int]
) -> None:
    inputs = image_input(*size)
    inputs["height"], inputs["width"] = height, width = 2 * size[0] + 1, size[1] + 3
    model.eval()
    with torch.no_grad():
        found = model([inputs])[0]["instances"]
    assert len(found) <= 20 and found.image_size == (height, width)
    assert found.pred_masks.shape == (len(found), height, width)
    assert found.pred_masks.dtype == torch.bool
    assert ((found.scores >= 0) & (found.scores <= 1)).all() and (found.scores.diff() <= 0).all()
    assert ((found.pred_classes >= 0) & (found.pred_classes < 6)).all()
    x0, y0, x1, y1 = found.pred_boxes.tensor.unbind(1)
    assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= width).all() and (y1 <= height).all()
    assert len(found) or min(size) < 20


def test_masks_stay_inside_their_boxes(model: MaskTransfiner) -> None:
    model.eval()
    with torch.no_grad():
        found = model([image_input(64, 96)])[0]["instances"]
    assert found.pred_masks.any((1, 2)).sum() >= 10
    for mask, (x0, y0, x1, y1) in zip(found.pred_masks, found.pred_boxes.tensor.tolist()):
        y, x = mask.nonzero(as_tuple=True)
        assert not len(x) or (x.min() >= x0 - 1 and x.max() <= x1 + 1)
        assert not len(y) or (y.min() >= y0 - 1 and y.max() <= y1 + 1)


def test_a_few_steps_on_two_images_cut_the_loss() -> None:
    model = small_model()
    inputs = [image_input(64, 64, 2, seed) for seed in (1, 2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    totals = []
    for _ in range(25):
        losses = train_step(model, inputs)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        totals.append(sum(float(loss.detach()) for loss in losses.values()))
    assert sum(totals[-3:]) / 3 < 0.6 * totals[0]
