"""Pixel decoders: the order of sums, context on the coarsest map, and their shapes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from queryseg.deformable_detr import cell_centres
from queryseg.layers import sine_position_encoding
from queryseg.projects.fastinst.build import build_pixel_decoder

IN_CHANNELS = {"res3": 6, "res4": 10, "res5": 12}
KINDS = ["fpn", "ppm_fpn", "encoder_fpn", "ms_deform_attn"]


def _features(height: int = 96, width: int = 128) -> dict[str, Tensor]:
    return {
        name: torch.randn(2, channels, height // stride, width // stride)
        for (name, channels), stride in zip(IN_CHANNELS.items(), (8, 16, 32))
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(96, 128), (32, 32)])
def test_pyramid_has_the_sizes_of_the_backbone_maps(kind: str, size: tuple[int, int]) -> None:
    decoder = build_pixel_decoder(kind=kind, in_channels=IN_CHANNELS, embed_dim=32)
    features = _features(*size)
    pyramid = decoder(features)
    assert [tuple(m.shape) for m in pyramid] == [
        (2, 32, *feature.shape[-2:]) for feature in features.values()
    ]


def _upsampled(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def test_levels_continue_from_the_smoothed_output_of_the_coarser_one() -> None:
    decoder = build_pixel_decoder(kind="fpn", in_channels=IN_CHANNELS, embed_dim=32)
    features = _features()
    e5 = decoder.outputs[2](decoder.top(features["res5"]))
    side = decoder.laterals[1](features["res4"])
    e4 = decoder.outputs[1](side + _upsampled(e5, side))
    side = decoder.laterals[0](features["res3"])
    e3 = decoder.outputs[0](side + _upsampled(e4, side))
    for ours, expected in zip(decoder(features), (e3, e4, e5)):
        torch.testing.assert_close(ours, expected)
        assert (ours >= 0).all()


def test_pyramid_pooling_averages_over_grids_and_mixes_them_in() -> None:
    top = build_pixel_decoder(kind="ppm_fpn", in_channels=IN_CHANNELS, embed_dim=32).top
    x = top.projection(torch.randn(2, 12, 6, 12))
    parts = []
    for side, branch in zip((1, 2, 3, 6), top.branches):
        means = x.view(2, 32, side, 6 // side, side, 12 // side).mean((3, 5))
        parts.append(_upsampled(F.relu(branch[1](means)), x))
    expected = F.relu(top.mix(torch.cat([*parts, x], dim=1)))
    top.projection = torch.nn.Identity()
    torch.testing.assert_close(top(x), expected)


def test_encoder_top_lets_every_pixel_see_all_others() -> None:
    top = build_pixel_decoder(kind="encoder_fpn", in_channels=IN_CHANNELS, embed_dim=32).top
    assert len(top.attention) == len(top.ffn) == 6
    feature = torch.randn(1, 12, 3, 4)
    x = top.projection(feature)
    position = sine_position_encoding(torch.zeros(1, 3, 4, dtype=torch.bool), embed_dim=32)
    tokens, position = x.flatten(2).mT, position.flatten(2).mT
    for attention, ffn in zip(top.attention, top.ffn):
        tokens = ffn(attention(tokens, position=position))
    torch.testing.assert_close(top(feature).flatten(2).mT, tokens)
    changed = feature.clone()
    changed[..., 0, 0] += 1
    assert (top(changed) - top(feature)).abs().amin((0, 1)).gt(0).all()


def test_deformable_encoder_tells_levels_apart_and_works_on_all() -> None:
    decoder = build_pixel_decoder(kind="ms_deform_attn", in_channels=IN_CHANNELS, embed_dim=32)
    features = _features(64, 64)
    maps = [p(features[name]) for p, name in zip(decoder.projections, IN_CHANNELS)]
    tokens = torch.cat([m.flatten(2).mT for m in maps], dim=1)
    shapes = [(8, 8), (4, 4), (2, 2)]
    position = torch.cat(
        [
            sine_position_encoding(torch.zeros(1, *s, dtype=torch.bool), embed_dim=32).flatten(2).mT
            + embed
            for s, embed in zip(shapes, decoder.level_embed)
        ],
        dim=1,
    )
    centres = cell_centres(shapes, like=tokens)
    for layer in decoder.encoder.layers:
        read = layer.attention(tokens + position, centres.expand(2, -1, -1, -1), tokens, shapes)
        tokens = layer.ffn(layer.norm(tokens + read))
    ours = torch.cat([m.flatten(2).mT for m in decoder(features)], dim=1)
    torch.testing.assert_close(ours, tokens, atol=1e-5, rtol=1e-4)


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'bifpn'; expected one of fpn, ppm_fpn, encoder_fpn, ms"):
        build_pixel_decoder(kind="bifpn", in_channels=IN_CHANNELS, embed_dim=32)  # type: ignore[arg-type]
