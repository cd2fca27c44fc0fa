"""Residual blocks against their formulas, with the norm after and before."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from queryseg.layers import MLP, CrossAttentionBlock, FeedForwardBlock, SelfAttentionBlock


def _normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def test_cross_attention_adds_positions_to_queries_and_keys_only() -> None:
    block = CrossAttentionBlock(embed_dim=8, num_heads=2)
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    position, memory_position = torch.randn(2, 3, 8), torch.randn(1, 5, 8)
    read = block.attention(x + position, memory + memory_position, memory)
    output = block(x, memory, position=position, memory_position=memory_position)
    torch.testing.assert_close(output, _normed(x + read))


def test_cross_attention_before_norm_leaves_the_sum_and_the_memory_unnormed() -> None:
    block = CrossAttentionBlock(embed_dim=8, num_heads=2, pre_norm=True)
    x, memory, position = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    read = block.attention(_normed(x) + position, memory, memory)
    torch.testing.assert_close(block(x, memory, position=position), x + read)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_self_attention_reads_values_without_position(pre_norm: bool) -> None:
    block = SelfAttentionBlock(embed_dim=8, num_heads=2, pre_norm=pre_norm)
    x, position = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    value = _normed(x) if pre_norm else x
    query = value + position
    expected = x + block.attention(query, query, value)
    output = block(x, position=position)
    torch.testing.assert_close(output, expected if pre_norm else _normed(expected))


@pytest.mark.parametrize("pre_norm", [False, True])
def test_feed_forward_is_two_linear_layers_with_relu(pre_norm: bool) -> None:
    block = FeedForwardBlock(embed_dim=8, hidden_dim=16, pre_norm=pre_norm)
    x = torch.randn(2, 3, 8)
    hidden = F.relu(block.linear1(_normed(x) if pre_norm else x))
    expected = x + block.linear2(hidden)
    torch.testing.assert_close(block(x), expected if pre_norm else _normed(expected))


def test_dropout_acts_in_training_only() -> None:
    block = CrossAttentionBlock(embed_dim=8, num_heads=2, dropout=0.5)
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    assert not torch.equal(block(x, memory), block(x, memory))
    block.eval()
    assert torch.equal(block(x, memory), block(x, memory))


def test_mlp_has_relu_between_its_layers_and_none_at_the_end() -> None:
    mlp = MLP(input_dim=4, hidden_dim=6, output_dim=3, num_layers=3)
    x = torch.randn(10, 4)
    hidden = F.relu(mlp.layers[1](F.relu(mlp.layers[0](x))))
    torch.testing.assert_close(mlp(x), mlp.layers[2](hidden))
    assert [tuple(layer.weight.shape) for layer in mlp.layers] == [(6, 4), (6, 6), (3, 6)]
