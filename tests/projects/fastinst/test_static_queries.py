"""Queries without a classification head."""

import pytest
import torch

from queryseg.projects.fastinst.build import build_queries
from queryseg.projects.fastinst.positions import LearnedPositions, SinePositions

PYRAMID = [torch.randn(2, 8, 12, 16), torch.randn(2, 8, 6, 8), torch.randn(2, 8, 3, 4)]


def test_learned_queries_are_the_same_for_every_image() -> None:
    module = build_queries(kind="learned", embed_dim=8, num_classes=3, num_queries=9)
    queries = module(PYRAMID, LearnedPositions(embed_dim=8, num_queries=9))
    assert torch.equal(queries.feats[0], module.content.weight)
    assert torch.equal(queries.feats[0], queries.feats[1])
    assert torch.equal(queries.position[1], module.position.weight)
    assert queries.locations is None and queries.class_logits is None


def test_zero_queries_learn_their_position_only() -> None:
    module = build_queries(kind="zero", embed_dim=8, num_classes=3, num_queries=9)
    queries = module(PYRAMID, LearnedPositions(embed_dim=8, num_queries=9))
    assert not queries.feats.any()
    assert [name for name, _ in module.named_parameters()] == ["position.weight"]


def test_resized_queries_are_cells_of_the_map_and_lie_at_their_centres() -> None:
    module = build_queries(kind="resized", embed_dim=8, num_classes=3, num_queries=10)
    column = torch.arange(6.0)[None, None, :, None].expand(2, 8, 6, 6)
    positions = LearnedPositions(embed_dim=8, num_queries=10)
    queries = module([PYRAMID[0], column, PYRAMID[2]], positions)
    assert queries.feats.shape == (2, 9, 8)
    assert queries.feats[0, :, 0].tolist() == pytest.approx([0.5] * 3 + [2.5] * 3 + [4.5] * 3)
    assert queries.locations is not None
    assert queries.locations[1, 5].tolist() == pytest.approx([5 / 6, 0.5])
    torch.testing.assert_close(queries.position[0].T.view(8, 3, 3), positions.grid[0])
    assert not list(module.parameters())


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'ia'; expected 'activation'"):
        build_queries(kind="ia", embed_dim=8, num_classes=3, num_queries=9)  # type: ignore[arg-type]


def test_learned_grid_is_stretched_to_the_map() -> None:
    positions = LearnedPositions(embed_dim=8, num_queries=50)
    assert positions.grid.shape == (1, 8, 7, 7)
    torch.testing.assert_close(positions(torch.zeros(3, 8, 7, 7)), positions.grid)
    assert positions(PYRAMID[0]).shape == (1, 8, 12, 16)


def test_sine_positions_differ_between_all_pixels() -> None:
    encoded = SinePositions(embed_dim=8)(PYRAMID[1])
    assert encoded.shape == (1, 8, 6, 8)
    assert len(encoded[0].flatten(1).T.round(decimals=4).unique(dim=0)) == 48
