"""Self-attention inside square windows of a map, with a learned bias for each relative position."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What the release adds to the score of a pair that must not see each other, instead of -inf.
BLOCKED = -100.0


class WindowAttention(nn.Module):
    """Multi-head self-attention over the tokens of one window (Swin, equation 4).

    Every head adds a learned number for each of the (2 w - 1)^2 relative positions of two tokens.

    Args:
        embed_dim: C.
        num_heads: M.
        window_size: w, so that a window has w * w tokens.
        qkv_bias: whether queries, keys and values have a bias.
    """

    relative_position_index: Tensor

    def __init__(
        self, *, embed_dim: int, num_heads: int, window_size: int, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window_size - 1) ** 2, num_heads)
        )
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias)
        self.proj = nn.Linear(embed_dim, embed_dim)
        # Follows from the window size, so it stays out of checkpoints.
        index = relative_position_index(window_size)
        self.register_buffer("relative_position_index", index, persistent=False)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, blocked: Tensor | None = None) -> Tensor:
        """Attend inside each window.

        Args:
            windows: (B, N, S, C) with N windows of S = w * w tokens, row by row.
            blocked: (N, S, S), added to the scores of every head; None adds nothing.

        Returns:
            (B, N, S, C).
        """
        batch, count, tokens, channels = windows.shape
        # (3, B N, M, S, D): four dimensions, because the fused kernels take no more.
        query, key, value = (
            self.qkv(windows)
            .view(batch * count, tokens, 3, self.num_heads, channels // self.num_heads)
            .permute(2, 0, 3, 1, 4)
        )
        bias = self.position_bias().to(query.dtype)
        if blocked is None:
            bias = bias.expand(batch * count, -1, -1, -1)
        else:
            bias = bias + blocked[:, None].to(query.dtype)
            bias = bias.expand(batch, -1, -1, -1, -1).flatten(0, 1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(attended.transpose(1, 2).reshape(windows.shape))

    def position_bias(self) -> Tensor:
        """(M, S, S): the bias of every head for every pair of tokens of a window."""
        tokens = self.relative_position_index.shape[0]
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        return bias.view(tokens, tokens, self.num_heads).permute(2, 0, 1).contiguous()


def relative_position_index(window_size: int) -> Tensor:
    """Row of the bias table for each pair of tokens of a window.

    Returns:
        (S, S) int64, S = window_size^2: entry (i, j) is for a query i and a key j.

    >>> relative_position_index(2)
    tensor([[4, 3, 1, 0],
            [5, 4, 2, 1],
            [7, 6, 4, 3],
            [8, 7, 5, 4]])
    """
    steps = torch.arange(window_size)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    down = rows.flatten()[:, None] - rows.flatten()
    right = columns.flatten()[:, None] - columns.flatten()
    return (down + window_size - 1) * (2 * window_size - 1) + right + window_size - 1


def split_windows(x: Tensor, window_size: int) -> Tensor:
    """(B, H, W, C), sides multiples of w, to (B, H W / w^2, w^2, C), windows row by row."""
    batch, height, width, channels = x.shape
    rows, columns = height // window_size, width // window_size
    x = x.view(batch, rows, window_size, columns, window_size, channels)
    return x.transpose(2, 3).reshape(batch, rows * columns, window_size**2, channels)


def join_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `split_windows`: (B, N, w^2, C) to (B, height, width, C)."""
    batch, _, tokens, channels = windows.shape
    side = int(tokens**0.5)
    windows = windows.view(batch, height // side, width // side, side, side, channels)
    return windows.transpose(2, 3).reshape(batch, height, width, channels)


def blocked_by_shift(
    height: int, width: int, *, window_size: int, shift: int, device: torch.device
) -> Tensor:
    """Score terms that keep apart what a cyclic shift brought together.

    After rolling a map by `shift` up and left, its last windows hold pieces from opposite borders.

    Args:
        height: of the padded map, a multiple of `window_size`.
        width: likewise.
        window_size: w.
        shift: how far the map was rolled, 0 < shift < w.
        device: of the result.

    Returns:
        (H W / w^2, w^2, w^2): 0 for tokens of one piece, `BLOCKED` otherwise.
    """

    def pieces(length: int) -> Tensor:
        steps = torch.arange(length, device=device)
        return (steps >= length - window_size).long() + (steps >= length - shift)

    regions = 3 * pieces(height)[:, None] + pieces(width)
    regions = split_windows(regions[None, :, :, None], window_size)[0, :, :, 0]
    apart = regions[:, :, None] != regions[:, None, :]
    return torch.where(apart, BLOCKED, 0.0)
