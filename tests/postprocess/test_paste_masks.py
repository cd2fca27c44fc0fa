"""Masks pasted into the image, against Detectron2's and against a naive loop."""

import math

import pytest
import torch
from detectron2.layers import paste_masks_in_image

from queryseg.postprocess import paste_masks
from queryseg.postprocess.paste_masks import mask_values

SIZE = (40, 56)


def _boxes(count: int) -> torch.Tensor:
    """Some leave the image on a side, none wholly."""
    centres = torch.rand(count, 2) * torch.tensor([56.0, 40.0])
    halves = torch.rand(count, 2) * 20 + 1
    return torch.cat((centres - halves, centres + halves), dim=1)


def test_masks_are_those_of_detectron2() -> None:
    probs, boxes = torch.rand(60, 7, 7), _boxes(60)
    ours = paste_masks(probs, boxes, SIZE)
    theirs = paste_masks_in_image(probs, boxes, SIZE, threshold=0.5)
    # Values within rounding of the threshold may fall to either side.
    assert int((ours != theirs).sum()) <= 2
    assert 0.03 < float(ours.float().mean()) < 0.9


def test_values_equal_a_naive_bilinear_loop() -> None:
    probs, box = torch.rand(1, 3, 4).double(), torch.tensor([[-2.5, 1.0, 5.0, 7.5]]).double()
    values = mask_values(probs, box, (9, 6))[0]

    def cell(row: int, column: int) -> float:
        return float(probs[0, row, column]) if 0 <= row < 3 and 0 <= column < 4 else 0.0

    for y in range(9):
        for x in range(6):
            v = (y + 0.5 - 1.0) / 6.5 * 3 - 0.5
            u = (x + 0.5 + 2.5) / 7.5 * 4 - 0.5
            row, column = math.floor(v), math.floor(u)
            fv, fu = v - row, u - column
            expected = (
                (1 - fv) * (1 - fu) * cell(row, column)
                + (1 - fv) * fu * cell(row, column + 1)
                + fv * (1 - fu) * cell(row + 1, column)
                + fv * fu * cell(row + 1, column + 1)
            )
            assert float(values[y, x]) == pytest.approx(expected, abs=1e-12)


def test_windows_of_the_boxes_lose_nothing_of_the_whole_image() -> None:
    probs, boxes = torch.rand(30, 5, 5), _boxes(30)
    for threshold in (0.05, 0.5):
        whole = mask_values(probs, boxes, SIZE) >= threshold
        assert torch.equal(paste_masks(probs, boxes, SIZE, threshold), whole)


def test_a_box_that_leaves_the_image_keeps_its_mask_unsqueezed() -> None:
    probs = torch.zeros(1, 4, 4)
    probs[:, :, :2] = 1.0  # the left half, which is outside
    box = torch.tensor([[-20.0, 0.0, 20.0, 40.0]])
    assert int(paste_masks(probs, box, SIZE).sum()) == 0
    clipped = box.clamp(min=0)
    assert int(paste_masks(probs, clipped, SIZE).sum()) > 300  # what clipping first would give


@pytest.mark.parametrize(
    "box",
    [
        [60.0, 0.0, 80.0, 20.0],
        [-30.0, -30.0, -2.0, -2.0],
        [0.0, 45.0, 10.0, 50.0],
        [10.0, 10.0, 10.0, 30.0],
        [30.0, 10.0, 10.0, 30.0],
        [float("nan")] * 4,
        [0.0, 0.0, float("inf"), 10.0],
    ],
    ids=["right", "above", "below", "no width", "inverted", "nan", "infinite"],
)
def test_boxes_outside_or_without_extent_have_empty_masks(box: list[float]) -> None:
    pasted = paste_masks(torch.ones(1, 4, 4), torch.tensor([box]), SIZE)
    assert pasted.shape == (1, *SIZE) and pasted.dtype == torch.bool
    assert not pasted.any()


def test_no_masks_and_half_precision_are_fine() -> None:
    assert paste_masks(torch.rand(0, 4, 4), torch.rand(0, 4), SIZE).shape == (0, *SIZE)
    probs, boxes = torch.rand(5, 4, 4), _boxes(5)
    half = paste_masks(probs.half(), boxes, SIZE)
    assert float((half != paste_masks(probs, boxes, SIZE)).float().mean()) < 0.01
