"""Point sampling against a loop over the four neighbouring pixels."""

import math

import pytest
import torch
from torch import Tensor

from queryseg.losses import (
    PointSampler,
    point_sampling,
    sample_maps,
    sample_masks,
    uniform_points,
)


def _bilinear(image: Tensor, x: float, y: float) -> float:
    """Value of a (H, W) map at a point of the unit square; zero outside."""
    height, width = image.shape
    column, row = x * width - 0.5, y * height - 0.5
    value = 0.0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                value += float(image[i, j]) * (1 - abs(row - i)) * (1 - abs(column - j))
    return value


def test_maps_and_masks_are_sampled_bilinearly_with_zeros_outside() -> None:
    masks = torch.rand(3, 5, 7) > 0.5
    points = (torch.rand(3, 40, 2) * 1.4 - 0.2).double()
    points[:, 0], points[:, 1] = 0.0, 1.0
    from_masks = sample_masks(masks, points)
    from_maps = sample_maps(masks.double()[:, None], points)[:, 0]
    for index in range(3):
        for place, (x, y) in enumerate(points[index].tolist()):
            expected = _bilinear(masks[index], x, y)
            assert float(from_masks[index, place]) == pytest.approx(expected, abs=1e-9)
            assert float(from_maps[index, place]) == pytest.approx(expected, abs=1e-9)


def test_rows_of_points_may_share_a_mask() -> None:
    masks = torch.rand(2, 6, 6) > 0.5
    points = torch.rand(3, 9, 2)
    mask_idx = torch.tensor([1, 1, 0])
    torch.testing.assert_close(
        sample_masks(masks, points, mask_idx), sample_masks(masks[mask_idx], points)
    )


def test_a_point_that_is_nan_has_no_value_and_leaves_the_others() -> None:
    masks = torch.ones(1, 3, 4, dtype=torch.bool)
    values = sample_masks(masks, torch.tensor([[[0.5, 0.5], [float("nan"), 0.5]]]))
    assert values[0, 0] == 1.0
    assert values[0, 1].isnan()


def test_pixels_of_a_mask_with_more_than_2_24_are_told_apart() -> None:
    height, width = 4100, 4099
    masks = torch.zeros(1, height, width, dtype=torch.bool)
    masks[0, -2, ::2] = True
    columns = torch.arange(width - 20, width)
    points = torch.stack(
        ((columns + 0.5) / width, torch.full((20,), (height - 1.5) / height)), dim=1
    )
    values = sample_masks(masks, points[None])
    torch.testing.assert_close(values[0], 1.0 - columns % 2, rtol=0, atol=0.01)


def test_no_masks_give_no_values() -> None:
    assert sample_masks(torch.zeros(0, 4, 4, dtype=torch.bool), torch.rand(0, 5, 2)).shape == (0, 5)
    assert sample_maps(torch.zeros(0, 1, 4, 4), torch.rand(0, 5, 2)).shape == (0, 1, 5)


def test_uncertain_points_are_the_candidates_with_the_least_logits_and_some_others() -> None:
    drawn: list[Tensor] = []

    def draw(rows: int, count: int, device: torch.device) -> Tensor:
        drawn.append(uniform_points(rows, count, device))
        return drawn[-1]

    sampler = PointSampler(
        num_points=20, oversample_ratio=4.0, importance_sample_ratio=0.7, draw=draw
    )
    logits = torch.randn(2, 8, 8)
    points = sampler.uncertain(logits)
    candidates, rest = drawn
    assert candidates.shape == (2, 80, 2)
    assert rest.shape == (2, 6, 2)
    for index in range(2):
        doubt = [abs(_bilinear(logits[index], x, y)) for x, y in candidates[index].tolist()]
        least = sorted(doubt)[:14]
        taken = [abs(_bilinear(logits[index], x, y)) for x, y in points[index, :14].tolist()]
        assert sorted(taken) == pytest.approx(least, abs=1e-6)
    assert torch.equal(points[:, 14:], rest)


def test_many_masks_are_worked_on_in_chunks_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fixed(rows: int, count: int, device: torch.device) -> Tensor:
        generator = torch.Generator().manual_seed(count)
        return torch.rand(1, count, 2, generator=generator).expand(rows, -1, -1)

    sampler = PointSampler(num_points=8, draw=fixed)
    logits, masks = torch.randn(11, 4, 4), torch.rand(11, 4, 4) > 0.5
    points = sampler.uncertain(logits)
    values = sample_masks(masks, points)
    monkeypatch.setattr(point_sampling, "POINTS_AT_ONCE", 50)
    assert torch.equal(sampler.uncertain(logits), points)
    assert torch.equal(sample_masks(masks, points), values)
    monkeypatch.setattr(point_sampling, "POINTS_AT_ONCE", 1)
    assert torch.equal(sample_masks(masks, points), values)


def test_points_carry_no_gradient_and_none_are_drawn_without_masks() -> None:
    sampler = PointSampler(num_points=8)
    points = sampler.uncertain(torch.randn(1, 4, 4, requires_grad=True))
    assert not points.requires_grad
    assert sampler.uncertain(torch.zeros(0, 4, 4)).shape == (0, 8, 2)


def test_uniform_points_fill_the_unit_square() -> None:
    points = PointSampler(num_points=4000).uniform(2, torch.device("cpu"))
    assert points.shape == (2, 4000, 2)
    assert 0 <= float(points.min()) < 0.01
    assert 0.99 < float(points.max()) <= 1
    assert points.mean((0, 1)).tolist() == pytest.approx([0.5, 0.5], abs=0.03)
