"""Masks at the output size, in one step and in the release's two."""

import pytest
import torch
import torch.nn.functional as F

from queryseg.projects.soit.mask_resizing import output_masks
from queryseg.projects.soit.upsampling import aligned_upsample

IMAGE, OUTPUT = (96, 128), (70, 90)
LOGITS = (12, 16)


def _smooth_logits(count: int, size: tuple[int, int] = LOGITS) -> torch.Tensor:
    coarse = torch.randn(1, count, 4, 5, generator=torch.Generator().manual_seed(0))
    return 4 * F.interpolate(coarse, size, mode="bicubic", align_corners=True)[0]


def test_one_step_is_one_bilinear_resize_of_the_probabilities() -> None:
    logits = _smooth_logits(5)
    masks = output_masks(logits, padded_size=IMAGE, image_size=IMAGE, output_size=OUTPUT)
    probs = aligned_upsample(logits).sigmoid()
    expected = F.interpolate(probs[None], OUTPUT, mode="bilinear", align_corners=True)[0] > 0.5
    assert masks.dtype == torch.bool
    assert torch.equal(masks, expected)


def test_two_steps_go_over_the_size_of_the_input() -> None:
    logits = _smooth_logits(5)
    sizes = {"padded_size": IMAGE, "image_size": IMAGE, "output_size": OUTPUT}
    twice = output_masks(logits, **sizes, resize_twice=True)
    probs = aligned_upsample(logits).sigmoid()
    for size in (IMAGE, OUTPUT):
        probs = F.interpolate(probs[None], size, mode="bilinear", align_corners=True)[0]
    assert torch.equal(twice, probs > 0.5)
    once = output_masks(logits, **sizes)
    iou = (once & twice).sum((1, 2)) / (once | twice).sum((1, 2))
    assert (iou > 0.97).all() and not torch.equal(once, twice)


def test_padding_is_cut_off() -> None:
    # A map of 16 x 24 upsampled to 64 x 96; the image is its part of 48 x 64 pixels of 63 x 95.
    logits = _smooth_logits(3, (16, 24))
    padded_size, image_size, output_size = (127, 191), (93, 127), (47, 64)
    masks = output_masks(
        logits, padded_size=padded_size, image_size=image_size, output_size=output_size
    )
    probs = aligned_upsample(logits).sigmoid()
    for row in range(0, 47, 5):
        for column in range(0, 64, 7):
            y = row * (92 / 46) * (63 / 126)
            x = column * (126 / 63) * (95 / 190)
            assert y == pytest.approx(row) and x == pytest.approx(column)
            assert torch.equal(masks[:, row, column], probs[:, row, column] > 0.5)


@pytest.mark.parametrize("resize_twice", [True, False])
def test_groups_of_masks_change_nothing(
    resize_twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = _smooth_logits(5)
    sizes = {"padded_size": IMAGE, "image_size": IMAGE, "output_size": OUTPUT}
    expected = output_masks(logits, **sizes, resize_twice=resize_twice)
    monkeypatch.setattr("queryseg.projects.soit.mask_resizing.PIXELS_AT_ONCE", 2 * 96 * 128)
    assert torch.equal(output_masks(logits, **sizes, resize_twice=resize_twice), expected)
