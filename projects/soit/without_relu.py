"""The paper's instance-aware transformer, which has no ReLU, on the kernel, which has one."""

import torch
from torch import Tensor


def without_relu(
    mask_feats: Tensor,
    dynamic_weights: Tensor,
    row_codes: Tensor,
    column_codes: Tensor,
    num_heads: int,
    num_points: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs with twice the channels that give the same prediction as without the ReLU.

    A head reads its channels and then their negatives, and w x = w relu(x) - w relu(-x). The
    negatives have no weight in the query, so they move no sample.

    Args:
        mask_feats: (B, H, W, C).
        dynamic_weights: (N, D).
        row_codes: (N, H + 1, C / 2).
        column_codes: (N, W + 1, C / 2).
        num_heads: M.
        num_points: K.

    Returns:
        The four inputs for 2 C channels.
    """
    channels, rows = mask_feats.shape[-1], num_heads * num_points
    offsets, offset_bias, attention, attention_bias, output, output_bias = dynamic_weights.split(
        [2 * rows * channels, 2 * rows, rows * channels, rows, channels, 1], dim=1
    )
    doubled = (
        _doubled(offsets.unflatten(1, (2 * rows, channels)), num_heads, 0.0).flatten(1),
        offset_bias,
        _doubled(attention.unflatten(1, (rows, channels)), num_heads, 0.0).flatten(1),
        attention_bias,
        _doubled(output, num_heads, -1.0),
        output_bias,
    )
    row_part = row_codes.shape[-1]
    no_rows = torch.zeros_like(column_codes[..., :1]).expand(*column_codes.shape[:-1], row_part)
    no_columns = torch.zeros_like(row_codes[..., :1]).expand(
        *row_codes.shape[:-1], column_codes.shape[-1]
    )
    row_codes = _doubled(torch.cat((row_codes, no_columns), dim=-1), num_heads, 0.0)
    column_codes = _doubled(torch.cat((no_rows, column_codes), dim=-1), num_heads, 0.0)
    head_dim = channels // num_heads
    border = 2 * head_dim * (row_part // head_dim) + row_part % head_dim
    return (
        _doubled(mask_feats, num_heads, -1.0),
        torch.cat(doubled, dim=1),
        row_codes[..., :border].contiguous(),
        column_codes[..., border:].contiguous(),
    )


def _doubled(x: Tensor, num_heads: int, factor: float) -> Tensor:
    """(..., C) to (..., 2 C): each head's channels, then `factor` times the same."""
    heads = x.unflatten(-1, (num_heads, -1))
    return torch.stack((heads, factor * heads), dim=-2).flatten(-3)
