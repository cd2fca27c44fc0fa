"""Mask losses against loops over masks and pixels, and in groups against all at once."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from queryseg.projects.soit.mask_branch import MatchedMasks
from queryseg.projects.soit.mask_loss import MaskLoss, canvas_bce_loss, canvas_dice_loss
from queryseg.projects.soit.upsampling import aligned_upsample

PADDED, MAP = (43, 61), (6, 8)
SIZES = [(43, 61), (30, 40)]
VALID = torch.tensor([[6, 8], [4, 5]])


def _matched(dtype: torch.dtype = torch.float64) -> tuple[MatchedMasks, list[Tensor]]:
    """Two layers of three instances; the second image has two of them."""
    tgt_idx = torch.tensor([0, 0, 1, 1, 2, 2])
    masks = [torch.rand(1, *SIZES[0]) > 0.5, torch.rand(2, *SIZES[1]) > 0.5]
    matched = MatchedMasks(
        mask_logits=(3 * torch.randn(6, *MAP, dtype=dtype)).requires_grad_(),
        tgt_idx=tgt_idx,
        image_idx=torch.tensor([0, 0, 1, 1, 1, 1]),
        layer_idx=torch.tensor([0, 1] * 3),
        layers=range(2),
    )
    return matched, masks


def _loss(matched: MatchedMasks, masks: list[Tensor], **options: int) -> tuple[Tensor, Tensor]:
    return MaskLoss(**options)(matched, masks, padded_size=PADDED, valid_sizes=VALID)


def _upsampled(maps: Tensor, row: int, column: int) -> float:
    """Output pixel of the upsampling, read at (i - 2) / 4 between clamped neighbours."""
    value = 0.0
    y, x = (
        min(max((place - 2) / 4, 0.0), side - 1.0) for place, side in zip((row, column), maps.shape)
    )
    for i in (math.floor(y), math.ceil(y)):
        for j in (math.floor(x), math.ceil(x)):
            weight_y = 1.0 if math.floor(y) == math.ceil(y) else 1 - abs(y - i)
            weight_x = 1.0 if math.floor(x) == math.ceil(x) else 1 - abs(x - j)
            share = (0.5 if math.floor(y) == math.ceil(y) else 1.0) * (
                0.5 if math.floor(x) == math.ceil(x) else 1.0
            )
            value += float(maps[i, j]) * weight_y * weight_x * share
    return value


def test_upsampling_reads_a_quarter_of_the_place_minus_two() -> None:
    maps = torch.randn(1, *MAP, dtype=torch.float64)
    large = aligned_upsample(maps)
    assert large.shape == (1, 24, 32)
    for row in range(24):
        for column in range(32):
            expected = _upsampled(maps[0], row, column)
            assert float(large[0, row, column]) == pytest.approx(expected, abs=1e-12)


def test_losses_of_each_mask_equal_their_formulas() -> None:
    matched, masks = _matched()
    dice, bce = (loss.detach() for loss in _loss(matched, masks))
    valid_pixels = [24 * 32, 14 * 18]  # place i reads at 5 i / 23 of rows, 7 i / 31 of columns
    for index in range(6):
        image = int(matched.image_idx[index])
        place = int(matched.tgt_idx[index]) - image
        p = aligned_upsample(matched.mask_logits[index : index + 1].detach()).sigmoid()[0]
        canvas = torch.zeros(1, 1, *PADDED)
        canvas[0, 0, : SIZES[image][0], : SIZES[image][1]] = masks[image][place]
        t = F.interpolate(canvas, (24, 32), mode="bilinear", align_corners=True)[0, 0].double()
        total = float((p * p).sum() + (t * t).sum()) + 1e-5
        assert float(dice[index]) == pytest.approx(1 - 2 * float((p * t).sum()) / total, rel=1e-6)
        entropy = -(t * p.log() + (1 - t) * (1 - p).log()).sum()
        expected = float(entropy) / valid_pixels[image]
        assert float(bce[index]) == pytest.approx(expected, rel=1e-6)


def test_valid_pixels_are_those_that_read_no_padding() -> None:
    for valid in ((6, 8), (4, 5), (1, 1), (6, 3)):
        padding = torch.ones(1, 1, *MAP)
        padding[..., : valid[0], : valid[1]] = 0
        large = F.interpolate(padding, (24, 32), mode="bilinear", align_corners=True)
        found = MaskLoss().valid_pixels(torch.tensor([valid]), MAP)
        assert int(found) == int((large == 0).sum())


@pytest.mark.parametrize("pixels_at_once", [1, 2 * 24 * 32, 3 * 24 * 32])
def test_groups_change_neither_losses_nor_gradients(pixels_at_once: int) -> None:
    matched, masks = _matched()
    gradients, values = [], []
    for limit in (2**23, pixels_at_once):
        matched.mask_logits.grad = None
        dice, bce = _loss(matched, masks, pixels_at_once=limit)
        (dice.sum() + (bce * torch.arange(6)).sum()).backward()
        assert matched.mask_logits.grad is not None
        gradients.append(matched.mask_logits.grad.clone())
        values.append(torch.stack((dice, bce)))
    assert torch.allclose(*values, rtol=1e-12)
    assert torch.allclose(*gradients, rtol=1e-9, atol=1e-12)


def test_gradient_is_that_of_finite_differences() -> None:
    matched, masks = _matched()

    def losses(mask_logits: Tensor) -> tuple[Tensor, Tensor]:
        changed = MatchedMasks(
            mask_logits, matched.tgt_idx, matched.image_idx, matched.layer_idx, matched.layers
        )
        return _loss(changed, masks, pixels_at_once=2 * 24 * 32)

    assert torch.autograd.gradcheck(losses, matched.mask_logits, fast_mode=True)


def test_no_masks_cost_nothing_and_keep_the_graph() -> None:
    logits = torch.zeros(0, *MAP, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.int64)
    matched = MatchedMasks(logits, nothing, nothing, nothing, range(2))
    masks = [torch.zeros(0, *size, dtype=torch.bool) for size in SIZES]
    dice, bce = _loss(matched, masks)
    (dice.sum() + bce.sum()).backward()
    assert dice.shape == bce.shape == (0,) and logits.grad is not None


def test_saturated_probabilities_are_clamped_and_learn_nothing() -> None:
    logits = torch.tensor([[[200.0, -200.0]]], requires_grad=True)
    loss = canvas_bce_loss(logits.sigmoid(), torch.tensor([[[0.0, 1.0]]]))
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(200.0)
    assert logits.grad is not None and logits.grad.eq(0).all()
    assert float(canvas_dice_loss(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2))) == 1.0
