"""Pasting of box-sized masks."""

import numpy as np
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.layers.mask_ops import pad_masks, paste_mask_in_image_old, scale_boxes
from detectron2.structures import Boxes

BOXES = [
    [3.2, 2.1, 17.9, 21.4],
    [-6.0, -4.5, 9.5, 8.0],
    [20.3, 12.0, 35.0, 40.7],
    [5.0, 5.0, 6.4, 29.0],
]
SIZE = (26, 31)


def pasted_values(mask: np.ndarray, box: list[float]) -> np.ndarray:
    """Bilinear value of an (M, M) mask at every pixel centre; cells outside the mask are 0."""
    side = len(mask)
    padded = np.pad(mask.astype(np.float64), 1)
    rows, columns = ((np.arange(n) + 0.5) for n in SIZE)
    v = np.clip((rows - box[1]) / (box[3] - box[1]) * side + 0.5, 0, side + 1)
    u = np.clip((columns - box[0]) / (box[2] - box[0]) * side + 0.5, 0, side + 1)
    y, x = np.minimum(v.astype(int), side), np.minimum(u.astype(int), side)
    fy, fx = (v - y)[:, None], (u - x)[None]
    corner = lambda dy, dx: padded[np.ix_(y + dy, x + dx)]  # noqa: E731
    low = corner(0, 0) * (1 - fx) + corner(0, 1) * fx
    return low * (1 - fy) + (corner(1, 0) * (1 - fx) + corner(1, 1) * fx) * fy


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_pasted_masks_are_bilinear_samples_cut_at_the_threshold(threshold):
    masks = torch.rand(len(BOXES), 7, 7)
    pasted = paste_masks_in_image(masks, Boxes(torch.tensor(BOXES)), SIZE, threshold)
    assert pasted.dtype == torch.bool and pasted.shape == (len(BOXES), *SIZE)
    for mask, box, result in zip(masks.numpy(), BOXES, pasted.numpy()):
        values = pasted_values(mask, box)
        clear = np.abs(values - threshold) > 1e-4
        assert clear.mean() > 0.99 and 0 < result.mean() < 0.6
        np.testing.assert_array_equal(result[clear], (values >= threshold)[clear])


def test_negative_threshold_returns_the_values_in_255_steps():
    masks, boxes = torch.rand(len(BOXES), 7, 7), torch.tensor(BOXES)
    values = paste_masks_in_image(masks, boxes, SIZE, threshold=-1)
    assert values.dtype == torch.uint8
    for mask, (x1, y1, x2, y2), result in zip(masks.numpy(), BOXES, values.numpy()):
        inside = slice(max(int(y1), 0), int(y2)), slice(max(int(x1), 0), int(x2))
        expected = 255 * pasted_values(mask, [x1, y1, x2, y2])[inside]
        assert np.abs(result[inside] - (expected - 0.5)).max() < 0.51


def test_bool_masks_and_no_masks_are_fine_and_oblong_ones_are_not():
    boxes = torch.tensor(BOXES[:1])
    full = paste_masks_in_image(torch.ones(1, 5, 5, dtype=torch.bool), boxes, SIZE)
    # The value falls to 1/2 on the edges of the box and to 1/4 on its corners.
    solid = full[0, 2:21, 3:18]
    assert full.sum() == solid.sum() == solid.numel() - 4
    assert not solid[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    none = paste_masks_in_image(torch.zeros(0, 5, 5), torch.zeros(0, 4), SIZE)
    assert none.shape == (0, *SIZE) and none.dtype == torch.uint8
    with pytest.raises(AssertionError):
        paste_masks_in_image(torch.zeros(1, 4, 5), boxes, SIZE)


def test_pasted_masks_equal_those_of_the_real_package(stored):
    masks = torch.rand(40, 28, 28)
    low = torch.rand(40, 2) * torch.tensor([90.0, 70.0]) - 10
    boxes = torch.cat([low, (low + torch.rand(40, 2) * 50).clamp(min=1)], dim=1)
    pasted = paste_masks_in_image(masks, boxes, (80, 100))
    soft = paste_masks_in_image(masks[:4], boxes[:4], (80, 100), threshold=-1)
    answers = stored("mask_ops_paste", {"bits": np.packbits(pasted), "soft": soft})
    # Pixels whose value lies within rounding of the threshold may differ between machines.
    assert np.unpackbits(answers["bits"] ^ np.packbits(pasted)).sum() <= 3
    assert np.abs(answers["soft"].astype(int) - soft.numpy()).max() <= 1


def test_a_box_outside_the_image_gives_an_empty_mask(detectron2_kind):
    if detectron2_kind == "real":
        pytest.skip("the real package raises for a box more than a pixel outside the image")
    boxes = torch.tensor([[-20.0, 3.0, -9.0, 9.0], [3.0, 40.0, 9.0, 50.0], [2.0, 2.0, 9.0, 9.0]])
    pasted = paste_masks_in_image(torch.ones(3, 5, 5), boxes, SIZE)
    assert pasted.flatten(1).any(dim=1).tolist() == [False, False, True]


def test_old_pasting_cuts_corners_to_integers():
    mask = torch.full((4, 4), 0.75)
    image = paste_mask_in_image_old(mask, torch.tensor([-2.4, 3.6, 4.9, 9.2]), 8, 12, 0.5)
    expected = np.zeros((8, 12), dtype=np.uint8)
    expected[3:8, 0:5] = 1
    np.testing.assert_array_equal(image, expected)
    values = paste_mask_in_image_old(mask, torch.tensor([1.0, 1.0, 2.0, 2.0]), 4, 4, -1)
    assert values.unique().tolist() == [0, 191]


def test_padded_masks_belong_to_scaled_boxes():
    masks = torch.rand(2, 6, 6)
    padded, scale = pad_masks(masks, 2)
    assert scale == 10 / 6 and padded.shape == (2, 10, 10)
    assert torch.equal(padded[:, 2:-2, 2:-2], masks) and padded.sum() == masks.sum()
    boxes = scale_boxes(torch.tensor([[0.0, 2.0, 6.0, 8.0]]), scale)
    torch.testing.assert_close(boxes, torch.tensor([[-2.0, 0.0, 8.0, 10.0]]))
