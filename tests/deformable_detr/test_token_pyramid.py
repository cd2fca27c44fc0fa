"""Tokens of padded batches: masks, valid ratios, positions, projected levels."""

import pytest
import torch
import torch.nn.functional as F

from queryseg.deformable_detr import PyramidProjection, PyramidTokens, TokenPyramid
from queryseg.deformable_detr.token_pyramid import valid_level_sizes
from queryseg.layers import sine_position_encoding

SHAPES = [(25, 34), (13, 17), (7, 9)]
PADDED = (197, 270)
SIZES = [(197, 270), (171, 233), (1, 17)]


def pyramid(sizes: list[tuple[int, int]], offset: float = -0.5) -> TokenPyramid:
    module = PyramidTokens(embed_dim=8, num_levels=3, temperature=20.0, offset=offset)
    maps = [torch.randn(len(sizes), 8, *shape) for shape in SHAPES]
    return module(maps, sizes, PADDED)


def test_valid_part_of_a_level_is_the_mask_resized_to_the_nearest() -> None:
    masks = torch.ones(3, 1, *PADDED)
    for mask, (height, width) in zip(masks, SIZES):
        mask[0, :height, :width] = 0
    tokens = pyramid(SIZES)
    assert tokens.padding_mask is not None
    parts = tokens.padding_mask.split([height * width for height, width in SHAPES], dim=1)
    for level, (shape, part) in enumerate(zip(SHAPES, parts)):
        expected = F.interpolate(masks, shape, mode="nearest")[:, 0].bool()
        assert torch.equal(part.view(-1, *shape), expected)
        for image in range(3):
            valid = ~expected[image]
            ratio = torch.stack((valid[0].float().mean(), valid[:, 0].float().mean()))
            assert torch.allclose(tokens.valid_ratios[image, level], ratio)


def test_batch_without_padding_has_no_mask() -> None:
    tokens = pyramid([PADDED, PADDED])
    assert tokens.padding_mask is None
    assert tokens.valid_ratios.eq(1).all()


def test_position_is_the_sine_of_the_valid_part_plus_the_level() -> None:
    module = PyramidTokens(embed_dim=8, num_levels=3, temperature=20.0, offset=0.0)
    tokens = module([torch.randn(3, 8, *shape) for shape in SHAPES], SIZES, PADDED)
    level = tokens.level(1)
    assert level.padding_mask is not None and level.spatial_shapes == [SHAPES[1]]
    mask = level.padding_mask.view(3, *SHAPES[1])
    sine = sine_position_encoding(mask, embed_dim=8, temperature=20.0).flatten(2).mT
    assert torch.allclose(level.position, sine + module.level_embed[1])
    start = SHAPES[0][0] * SHAPES[0][1]
    assert torch.equal(level.tokens, tokens.tokens[:, start : start + 13 * 17])
    assert torch.equal(level.valid_ratios, tokens.valid_ratios[:, 1:2])


def test_images_of_one_pixel_keep_one_valid_token_a_level() -> None:
    valid = valid_level_sizes([(1, 1)], PADDED, SHAPES, torch.device("cpu"))
    assert valid.tolist() == [[[1, 1]] * 3]


@pytest.mark.parametrize("bias", [True, False])
def test_extra_levels_begin_at_the_last_backbone_map(bias: bool) -> None:
    module = PyramidProjection(
        in_channels={"a": 6, "b": 10}, embed_dim=8, num_levels=4, bias=bias, norm_groups=2
    )
    features = {"a": torch.randn(2, 6, 12, 14), "b": torch.randn(2, 10, 6, 7)}
    maps = module(features)
    assert [tuple(level.shape[2:]) for level in maps] == [(12, 14), (6, 7), (3, 4), (2, 2)]
    assert [level[0].weight.shape[1] for level in module.levels] == [6, 10, 10, 8]
    assert (module.levels[0][0].bias is not None) is bias
    conv, norm = module.levels[2]
    raw = F.conv2d(features["b"], conv.weight, conv.bias, stride=2, padding=1)
    assert torch.allclose(maps[2], norm(raw))
    conv, norm = module.levels[3]
    raw = F.conv2d(maps[2], conv.weight, conv.bias, stride=2, padding=1)
    assert torch.allclose(maps[3], norm(raw))


def test_fewer_levels_than_features_are_refused() -> None:
    with pytest.raises(ValueError, match="1 levels cannot hold the 2 features"):
        PyramidProjection(in_channels={"a": 32, "b": 32}, embed_dim=32, num_levels=1)
