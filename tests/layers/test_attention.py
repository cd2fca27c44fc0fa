"""Multi-head attention against torch's own module and against loops."""

import math

import pytest
import torch
from torch import nn

from queryseg.layers import MultiheadAttention


def _pair() -> tuple[MultiheadAttention, nn.MultiheadAttention]:
    """Ours and torch's module with the same weights, in float64."""
    theirs = nn.MultiheadAttention(24, 4, batch_first=True).double()
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours = MultiheadAttention(embed_dim=24, num_heads=4).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def test_weights_of_torch_attention_load_and_give_the_same_output() -> None:
    ours, theirs = _pair()
    query, key, value = (torch.randn(2, n, 24, dtype=torch.float64) for n in (5, 9, 9))
    expected, _ = theirs(query, key, value, need_weights=False)
    torch.testing.assert_close(ours(query, key, value), expected)


def test_self_attention_with_one_projection_equals_two() -> None:
    ours, _ = _pair()
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    torch.testing.assert_close(ours(x, x, x + 1), ours(x, x.clone(), x + 1))


def test_closed_positions_are_not_read() -> None:
    ours, theirs = _pair()
    query, key = torch.randn(2, 5, 24).double(), torch.randn(2, 9, 24).double()
    attend = torch.rand(2, 1, 5, 9) > 0.5
    attend[..., 0] = True
    blocked = (~attend).expand(-1, 4, -1, -1).flatten(0, 1)
    expected, _ = theirs(query, key, key, attn_mask=blocked, need_weights=False)
    output = ours(query, key, key, attend)
    torch.testing.assert_close(output, expected)
    changed = key.clone()
    changed[0, 3] += 100
    attend[0, :, :, 3] = False
    before, after = (ours(query, k, k, attend)[0] for k in (key, changed))
    torch.testing.assert_close(before, after)


def test_output_equals_loops_over_heads_and_queries() -> None:
    ours, _ = _pair()
    query, memory = torch.randn(1, 3, 24).double(), torch.randn(1, 4, 24).double()
    weight, bias = ours.in_proj_weight.detach(), ours.in_proj_bias.detach()
    gathered = torch.zeros(3, 24, dtype=torch.float64)
    for head in range(4):
        rows = slice(6 * head, 6 * head + 6)
        for q in range(3):
            asked = weight[:24][rows] @ query[0, q] + bias[:24][rows]
            keys = [weight[24:48][rows] @ token + bias[24:48][rows] for token in memory[0]]
            values = [weight[48:][rows] @ token + bias[48:][rows] for token in memory[0]]
            scores = [math.exp(float(asked @ key) / math.sqrt(6)) for key in keys]
            for score, value in zip(scores, values):
                gathered[q, rows] += score / sum(scores) * value
    expected = gathered @ ours.out_proj.weight.T + ours.out_proj.bias
    torch.testing.assert_close(ours(query, memory, memory)[0], expected)


def test_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="30 is not a multiple of num_heads 4"):
        MultiheadAttention(embed_dim=30, num_heads=4)
