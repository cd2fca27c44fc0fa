"""Deformable attention and encoder against loops in float64."""

import math

import pytest
import torch
from torch import Tensor

from queryseg.deformable_detr import (
    DeformableAttention,
    DeformableEncoder,
    cell_centres,
    flatten_pyramid,
    split_pyramid,
)

SHAPES = [(3, 5), (2, 2)]
TOKENS = sum(height * width for height, width in SHAPES)


def _bilinear(level: Tensor, x: float, y: float) -> Tensor:
    """Value of a (H, W, D) level at x, y of [0, 1]; zero outside."""
    height, width, _ = level.shape
    column, row = x * width - 0.5, y * height - 0.5
    value = torch.zeros(level.shape[-1], dtype=level.dtype)
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                value += level[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return value


def _attention(num_heads: int = 2, num_points: int = 3) -> DeformableAttention:
    module = DeformableAttention(
        embed_dim=8, num_heads=num_heads, num_levels=2, num_points=num_points
    ).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.requires_grad_(False)


@pytest.mark.parametrize("reference_dim", [2, 4])
def test_output_equals_loops_over_heads_levels_and_points(reference_dim: int) -> None:
    module = _attention()
    query = torch.randn(1, 4, 8, dtype=torch.float64)
    value = torch.randn(1, TOKENS, 8, dtype=torch.float64)
    reference = torch.rand(1, 4, 2, reference_dim, dtype=torch.float64)
    padding = torch.zeros(1, TOKENS, dtype=torch.bool)
    padding[0, 7] = True
    projected = module.value_proj(value[0]).masked_fill(padding[0, :, None], 0.0)
    levels = [
        part.view(height, width, 2, 4)
        for part, (height, width) in zip(projected.split([15, 4]), SHAPES)
    ]
    expected = torch.zeros(4, 8, dtype=torch.float64)
    for q in range(4):
        offsets = module.sampling_offsets(query[0, q]).view(2, 2, 3, 2)
        weights = module.attention_weights(query[0, q]).view(2, 6).softmax(-1).view(2, 2, 3)
        for head in range(2):
            for index, (height, width) in enumerate(SHAPES):
                for point in range(3):
                    dx, dy = offsets[head, index, point].tolist()
                    x, y, *size = reference[0, q, index].tolist()
                    if size:
                        x, y = x + dx / 3 * size[0] / 2, y + dy / 3 * size[1] / 2
                    else:
                        x, y = x + dx / width, y + dy / height
                    read = _bilinear(levels[index][:, :, head], x, y)
                    expected[q, 4 * head : 4 * head + 4] += weights[head, index, point] * read
    output = module(query, reference, value, SHAPES, padding)
    torch.testing.assert_close(output[0], module.output_proj(expected))


def test_heads_start_in_different_directions_one_cell_further_each_point() -> None:
    module = DeformableAttention(embed_dim=8, num_heads=4, num_levels=2, num_points=3)
    offsets = module.sampling_offsets(torch.randn(8)).view(4, 2, 3, 2)
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for point in range(3):
        expected = (point + 1) * directions[:, None].expand(-1, 2, -1)
        torch.testing.assert_close(offsets[:, :, point], expected, atol=1e-6, rtol=0)
    weights = module.attention_weights(torch.randn(8))
    assert not weights.any()


def test_locations_keep_their_precision_under_autocast() -> None:
    torch.manual_seed(0)
    shapes = [(60, 80)]
    module = DeformableAttention(embed_dim=16, num_heads=2, num_levels=1, num_points=3)
    query, value = torch.randn(1, 40, 16), torch.randn(1, 4800, 16)
    reference = torch.rand(1, 40, 1, 2)
    exact = module(query, reference, value, shapes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(query, reference, value, shapes)
    assert output.dtype == torch.bfloat16
    assert (output - exact).norm() < 0.02 * exact.norm()
    moved = module(query, reference.bfloat16(), value, shapes)
    assert (moved - exact).norm() > 0.1 * exact.norm(), "rounded locations would go unnoticed"


def test_reference_points_may_serve_all_images_and_levels() -> None:
    module = _attention()
    query, value = (torch.randn(2, count, 8, dtype=torch.float64) for count in (4, TOKENS))
    reference = torch.rand(1, 4, 1, 4, dtype=torch.float64)
    expected = module(query, reference.expand(2, -1, 2, -1), value, SHAPES)
    torch.testing.assert_close(module(query, reference, value, SHAPES), expected)


def test_pyramid_survives_flattening() -> None:
    maps = [torch.randn(2, 8, height, width) for height, width in SHAPES]
    tokens, shapes = flatten_pyramid(maps)
    assert shapes == SHAPES
    assert torch.equal(tokens[1, 5 + 2], maps[0][1, :, 1, 2])
    assert torch.equal(tokens[1, 15 + 3], maps[1][1, :, 1, 1])
    for before, after in zip(maps, split_pyramid(tokens, shapes)):
        assert torch.equal(before, after)


def test_centres_of_cells_are_relative_to_the_part_without_padding() -> None:
    ratios = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.6, 1.0], [0.5, 0.5]]])
    centres = cell_centres(SHAPES, ratios, like=torch.zeros(2, 1))
    assert centres.shape == (2, TOKENS, 2, 2)
    for image in range(2):
        token = 0
        for own, (height, width) in enumerate(SHAPES):
            for row in range(height):
                for column in range(width):
                    for level in range(2):
                        x, y = (column + 0.5) / width, (row + 0.5) / height
                        own_x, own_y = ratios[image, own].tolist()
                        level_x, level_y = ratios[image, level].tolist()
                        expected = [x / own_x * level_x, y / own_y * level_y]
                        assert centres[image, token, level].tolist() == pytest.approx(expected)
                    token += 1


def test_encoder_adds_positions_to_queries_and_not_to_values() -> None:
    encoder = DeformableEncoder(
        num_layers=1, embed_dim=8, num_heads=2, num_levels=2, num_points=3, ffn_dim=16
    )
    tokens, position = torch.randn(2, TOKENS, 8), torch.randn(1, TOKENS, 8)
    (layer,) = encoder.layers
    centres = cell_centres(SHAPES, like=tokens)
    read = layer.attention(tokens + position, centres.expand(2, -1, -1, -1), tokens, SHAPES)
    expected = layer.ffn(layer.norm(tokens + read))
    torch.testing.assert_close(encoder(tokens, position, SHAPES), expected)


def test_padding_tokens_do_not_change_the_others() -> None:
    encoder = DeformableEncoder(
        num_layers=2, embed_dim=8, num_heads=2, num_levels=2, num_points=3, ffn_dim=16
    )
    padding = torch.zeros(1, TOKENS, dtype=torch.bool)
    padding[0, [4, 9, 14]] = True
    tokens, position = torch.randn(1, TOKENS, 8), torch.randn(1, TOKENS, 8)
    ratios = torch.tensor([[[0.8, 1.0], [1.0, 1.0]]])
    changed = tokens.clone()
    changed[padding] += 10
    a, b = (
        encoder(t, position, SHAPES, valid_ratios=ratios, padding_mask=padding)
        for t in (tokens, changed)
    )
    torch.testing.assert_close(a[~padding], b[~padding])
    assert not torch.allclose(a[padding], b[padding])


def test_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="10 is not a multiple of num_heads 4"):
        DeformableAttention(embed_dim=10, num_heads=4)
