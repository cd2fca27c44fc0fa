"""Overlap of boxes against torchvision."""

import pytest
import torch
from torchvision.ops import generalized_box_iou

from queryseg.boxes import generalized_iou


def random_boxes(*shape: int) -> torch.Tensor:
    corners = 50 * torch.rand(*shape, 2, dtype=torch.float64)
    return torch.cat((corners, corners + 1 + 40 * torch.rand_like(corners)), dim=-1)


def test_all_pairs_equal_torchvision() -> None:
    boxes, others = random_boxes(7), random_boxes(5)
    ours = generalized_iou(boxes[:, None], others)
    assert torch.allclose(ours, generalized_box_iou(boxes, others), rtol=1e-12, atol=1e-12)
    assert (ours < 0).any() and (ours > 0).any()


def test_rows_are_compared_one_to_one() -> None:
    boxes, others = random_boxes(6), random_boxes(6)
    expected = generalized_box_iou(boxes, others).diagonal()
    assert torch.allclose(generalized_iou(boxes, others), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("apart", [0.0, 10.0])
def test_boxes_without_area_have_a_finite_value_and_gradient(apart: float) -> None:
    box = torch.zeros(1, 4, requires_grad=True)
    value = generalized_iou(box, torch.full((1, 4), apart))
    value.sum().backward()
    assert value.isfinite().all() and -1 <= float(value.detach()) <= 1
    assert box.grad is not None and box.grad.isfinite().all()
