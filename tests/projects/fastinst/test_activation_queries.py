"""Picking instance activation-guided queries, against loops."""

import pytest
import torch
from torch import Tensor

from queryseg.projects.fastinst.activation_queries import (
    LEAST_MAXIMUM,
    ActivationQueries,
    pixel_locations,
)
from queryseg.projects.fastinst.positions import LearnedPositions


def _queries(num_queries: int = 10, **options: object) -> ActivationQueries:
    return ActivationQueries(embed_dim=8, num_classes=3, num_queries=num_queries, **options)


def _neighbours(row: int, column: int, height: int, width: int) -> list[tuple[int, int]]:
    return [
        (y, x)
        for y in range(max(row - 1, 0), min(row + 2, height))
        for x in range(max(column - 1, 0), min(column + 2, width))
        if (y, x) != (row, column)
    ]


def _rank_by_loops(probs: Tensor, same_class_only: bool) -> Tensor:
    """Release: neighbours of the same class; paper: all neighbours, in the pixel's class plane."""
    _, height, width = probs.shape
    best, classes = probs[:-1].max(0)
    scores = best.clone()
    for row in range(height):
        for column in range(width):
            mine, plane = float(best[row, column]), int(classes[row, column])
            others = [
                float(probs[plane, y, x])
                for y, x in _neighbours(row, column, height, width)
                if not same_class_only or int(classes[y, x]) == plane
            ]
            if mine >= max(others, default=0.0) and mine >= LEAST_MAXIMUM:
                scores[row, column] += 1
    return scores


@pytest.mark.parametrize("rule", ["own_class", "class_plane"])
@pytest.mark.parametrize("size", [(6, 9), (1, 7), (5, 1), (1, 1)])
def test_local_maxima_are_ranked_above_all_others(rule: str, size: tuple[int, int]) -> None:
    probs = (2 * torch.randn(2, 4, *size)).softmax(1)
    ranked = _queries(local_maximum=rule).rank(probs)
    for image in range(2):
        expected = _rank_by_loops(probs[image], same_class_only=rule == "own_class")
        torch.testing.assert_close(ranked[image], expected, rtol=0, atol=0)


def test_the_two_rules_differ_where_a_neighbour_prefers_another_class() -> None:
    probs = torch.tensor([[0.5, 0.4], [0.1, 0.55], [0.1, 0.0], [0.3, 0.05]]).view(1, 4, 1, 2)
    probs[0, 0, 0, 1], probs[0, 1, 0, 1] = 0.6, 0.3
    probs[0, 0, 0, 0] = 0.5
    own = _queries(local_maximum="own_class").rank(probs)
    assert own[0, 0].tolist() == pytest.approx([0.5, 1.6])
    probs[0, 0, 0, 1], probs[0, 1, 0, 1] = 0.55, 0.6
    own = _queries(local_maximum="own_class").rank(probs)
    plane = _queries(local_maximum="class_plane").rank(probs)
    assert own[0, 0].tolist() == pytest.approx([1.5, 1.6])
    assert plane[0, 0].tolist() == pytest.approx([0.5, 1.6])


def test_plateaus_are_maxima_everywhere_and_tiny_probabilities_are_none() -> None:
    logits = torch.zeros(1, 4, 3, 3)
    assert (_queries().rank(logits.softmax(1)) > 1).all()
    logits[:, :-1] = -20.0
    assert (_queries().rank(logits.softmax(1)) < LEAST_MAXIMUM).all()


def test_content_and_position_are_those_of_the_picked_pixels() -> None:
    pyramid = [torch.randn(2, 8, 12, 16), torch.randn(2, 8, 6, 8), torch.randn(2, 8, 3, 4)]
    positions = LearnedPositions(embed_dim=8, num_queries=10)
    queries = _queries()(pyramid, positions)
    assert queries.score_map is not None and queries.pixel_idx is not None
    assert queries.class_logits is not None and queries.class_logits.shape == (2, 4, 6, 8)
    grid = positions(pyramid[1])[0]
    for image in range(2):
        best = queries.score_map[image].flatten().sort(descending=True)
        assert queries.pixel_idx[image].tolist() == best.indices[:10].tolist()
        for place, pixel in enumerate(queries.pixel_idx[image].tolist()):
            row, column = divmod(pixel, 8)
            assert torch.equal(queries.feats[image, place], pyramid[1][image, :, row, column])
            assert torch.equal(queries.position[image, place], grid[:, row, column])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_queries_can_come_from_any_level(level: int) -> None:
    pyramid = [torch.randn(1, 8, 12, 16), torch.randn(1, 8, 6, 8), torch.randn(1, 8, 3, 4)]
    queries = _queries(level=level)(pyramid, LearnedPositions(embed_dim=8, num_queries=10))
    assert queries.class_logits is not None
    assert queries.class_logits.shape[-2:] == pyramid[level].shape[-2:]


def test_a_map_with_fewer_pixels_than_queries_gives_one_query_a_pixel() -> None:
    pyramid = [torch.randn(1, 8, 4, 6), torch.randn(1, 8, 2, 3), torch.randn(1, 8, 1, 2)]
    queries = _queries()(pyramid, LearnedPositions(embed_dim=8, num_queries=10))
    assert queries.feats.shape == (1, 6, 8)
    assert queries.pixel_idx is not None
    assert sorted(queries.pixel_idx[0].tolist()) == list(range(6))


def test_locations_put_the_outermost_pixels_on_the_border() -> None:
    locations = pixel_locations(torch.tensor([[0, 4, 7, 14]]), height=3, width=5)
    expected = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.5, 0.5], [1.0, 1.0]]])
    torch.testing.assert_close(locations, expected)
    assert pixel_locations(torch.tensor([[0]]), height=1, width=1).tolist() == [[[0.0, 0.0]]]


def test_gradient_reaches_the_map_through_content_and_class_logits_only() -> None:
    feature = torch.randn(1, 8, 6, 8, requires_grad=True)
    pyramid = [torch.randn(1, 8, 12, 16), feature]
    queries = _queries()(pyramid, LearnedPositions(embed_dim=8, num_queries=10))
    queries.feats.sum().backward()
    assert queries.pixel_idx is not None and feature.grad is not None
    picked = torch.zeros(48)
    picked[queries.pixel_idx[0]] = 1
    torch.testing.assert_close(feature.grad[0], picked.view(6, 8).expand(8, -1, -1))
    assert queries.score_map is not None and not queries.score_map.requires_grad
