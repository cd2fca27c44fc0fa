"""The deformable encoder, layer by layer."""

import torch
from torch import nn

from queryseg.deformable_detr import DeformableEncoder
from queryseg.layers import FeedForwardBlock

SHAPES = [(4, 5), (2, 3)]


def _encoder() -> DeformableEncoder:
    torch.manual_seed(0)
    return DeformableEncoder(
        num_layers=3, embed_dim=16, num_heads=2, num_levels=2, num_points=2, ffn_dim=32
    )


def test_each_layer_continues_where_the_one_before_ended() -> None:
    encoder = _encoder()
    tokens, position = torch.randn(2, 2, 26, 16).unbind()
    per_layer = list(encoder.each_layer(tokens, position, SHAPES))
    assert len(per_layer) == 3
    assert torch.equal(per_layer[-1], encoder(tokens, position, SHAPES))
    rest = encoder.layers
    encoder.layers = nn.ModuleList(list(rest)[1:])
    assert torch.equal(encoder(per_layer[0], position, SHAPES), per_layer[-1])


def test_activation_of_the_feed_forward_block_can_be_chosen() -> None:
    torch.manual_seed(0)
    block = FeedForwardBlock(embed_dim=8, hidden_dim=16, activation="gelu")
    x = torch.randn(3, 8)
    hidden = block.linear1(x)
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(block(x), block.norm(x + block.linear2(gelu)))
