"""Swin Transformer: self-attention in windows that shift from block to block."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from queryseg.backbones.window_attention import (
    WindowAttention,
    blocked_by_shift,
    join_windows,
    split_windows,
)

STAGES = ("res2", "res3", "res4", "res5")


def pad_to_multiple(x: Tensor, size: int) -> Tensor:
    """Append zeros below and to the right: (B, H, W, C) with both sides multiples of `size`."""
    height, width = x.shape[1:3]
    return F.pad(x, (0, 0, 0, -width % size, 0, -height % size))


class FeedForward(nn.Module):
    """Two linear layers with GELU between.

    Args:
        embed_dim: C, in and out.
        hidden_dim: in between.
    """

    def __init__(self, *, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Attention in windows, then a feed-forward, each behind a norm and beside a shortcut.

    Args:
        embed_dim: C.
        num_heads: attention heads.
        window_size: side of a window.
        shift: how far the windows are shifted down and right; 0 leaves them on the grid.
        mlp_ratio: hidden width of the feed-forward over C.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path: chance of dropping each of the two branches for a sample in training.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        window_size: int,
        shift: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = shift
        self.norm1 = nn.LayerNorm(embed_dim)
        self.attn = WindowAttention(
            embed_dim=embed_dim, num_heads=num_heads, window_size=window_size, qkv_bias=qkv_bias
        )
        self.drop_path = StochasticDepth(drop_path, mode="row")
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = FeedForward(embed_dim=embed_dim, hidden_dim=int(mlp_ratio * embed_dim))

    def forward(self, x: Tensor, blocked: Tensor | None = None) -> Tensor:
        """(B, H, W, C) to the same shape; `blocked` is `blocked_by_shift` of the padded map."""
        x = x + self.drop_path(self._attend(self.norm1(x), blocked))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, blocked: Tensor | None) -> Tensor:
        # Zeros appended to fill the last windows take part in the attention, as in the release.
        height, width = x.shape[1:3]
        x = pad_to_multiple(x, self.window_size)
        padded = x.shape[1:3]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        x = join_windows(self.attn(split_windows(x, self.window_size), blocked), *padded)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]


class PatchMerging(nn.Module):
    """Halve a map: each 2 x 2 tokens side by side, normed, projected to twice the width.

    Args:
        embed_dim: C before.
    """

    def __init__(self, *, embed_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * embed_dim)
        self.reduction = nn.Linear(4 * embed_dim, 2 * embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), 2 C)."""
        x = pad_to_multiple(x, 2)
        # The release goes down before it goes right.
        quads = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(quads, dim=-1)))


class PatchEmbed(nn.Module):
    """Cut an image into square patches and project each of them.

    Args:
        embed_dim: C.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, *, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, embed_dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) of any size to (B, ceil(H / patch), ceil(W / patch), C)."""
        height, width = images.shape[2:]
        images = F.pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class SwinStage(nn.Module):
    """Blocks of one resolution, every second one on shifted windows, and the step to the next.

    Args:
        embed_dim: C.
        num_heads: attention heads.
        window_size: side of a window.
        drop_paths: drop path rate of every block; their number is the depth.
        mlp_ratio: hidden width of the feed-forwards over C.
        qkv_bias: whether queries, keys and values have a bias.
        downsample: whether a coarser stage follows.
        use_checkpoint: keep only the blocks' inputs in training and compute the rest again.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        window_size: int,
        drop_paths: Sequence[float],
        mlp_ratio: float,
        qkv_bias: bool,
        downsample: bool,
        use_checkpoint: bool,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = window_size // 2
        self.use_checkpoint = use_checkpoint
        self.blocks = nn.ModuleList(
            SwinBlock(
                embed_dim=embed_dim,
                num_heads=num_heads,
                window_size=window_size,
                shift=self.shift if index % 2 else 0,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                drop_path=drop_path,
            )
            for index, drop_path in enumerate(drop_paths)
        )
        self.downsample = PatchMerging(embed_dim=embed_dim) if downsample else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) to the same shape, and what the next stage starts from."""
        height, width = (-(-side // self.window_size) * self.window_size for side in x.shape[1:3])
        blocked = blocked_by_shift(
            height, width, window_size=self.window_size, shift=self.shift, device=x.device
        )
        for block in self.blocks:
            mask = blocked if block.shift else None
            if self.use_checkpoint and self.training:
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask)
        return x, x if self.downsample is None else self.downsample(x)


class Swin(Backbone):
    """Swin Transformer for images of any size, under the parameter names of the release.

    The sizes of the paper stand in `configs/common/swin.py`. Numerics are those of the release for
    detection: the windows keep their size and their shift on maps that are smaller than a window,
    and the appended zeros are attended to.

    Args:
        embed_dim: C of the first stage; each further stage doubles it.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        window_size: side of a window in tokens: 7, or 12 for weights trained at 384 pixels.
        patch_size: side of a patch in pixels.
        mlp_ratio: hidden width of the feed-forwards over C.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: chance of dropping a branch of the last block; it grows linearly from 0.
        out_features: stages to return, among res2 to res5.
        norm_features: stages of `out_features` whose map gets a layer norm of its own, `norm0` to
            `norm3`; None is all of them. A detector with three levels has no norm for res2.
        use_checkpoint: keep only the blocks' inputs in training and compute the rest again.

    Raises:
        ValueError: depths and heads differ in number, a stage is unknown, or one is to be normed
            that is not returned.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        patch_size: int = 4,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.2,
        out_features: Sequence[str] = STAGES,
        norm_features: Sequence[str] | None = None,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        names = STAGES[: len(depths)]
        norm_features = out_features if norm_features is None else norm_features
        _check_stages(names, depths, num_heads, out_features, norm_features)
        self._out_features = [name for name in names if name in out_features]
        self._out_feature_channels = {n: embed_dim * 2**i for i, n in enumerate(names)}
        self._out_feature_strides = {n: patch_size * 2**i for i, n in enumerate(names)}
        self.patch_embed = PatchEmbed(embed_dim=embed_dim, patch_size=patch_size)
        last = max(sum(depths) - 1, 1)
        rates = [drop_path_rate * block / last for block in range(sum(depths))]
        self.layers = nn.ModuleList(
            SwinStage(
                embed_dim=embed_dim * 2**index,
                num_heads=num_heads[index],
                window_size=window_size,
                drop_paths=rates[sum(depths[:index]) : sum(depths[: index + 1])],
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                downsample=index < len(depths) - 1,
                use_checkpoint=use_checkpoint,
            )
            for index in range(len(depths))
        )
        for index, name in enumerate(names):
            if name in norm_features:
                self.add_module(f"norm{index}", nn.LayerNorm(embed_dim * 2**index))
        self.apply(_initialise)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to the maps of `out_features` by name, (B, C, ceil(H / stride), ...)."""
        x = self.patch_embed(x)
        outputs = {}
        for index, (name, stage) in enumerate(zip(STAGES, self.layers, strict=False)):
            last, x = stage(x)
            if name in self._out_features:
                norm = getattr(self, f"norm{index}", nn.Identity())
                outputs[name] = norm(last).permute(0, 3, 1, 2).contiguous()
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of `out_features`."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_stages(
    names: Sequence[str],
    depths: Sequence[int],
    num_heads: Sequence[int],
    out_features: Sequence[str],
    norm_features: Sequence[str],
) -> None:
    if len(depths) != len(num_heads) or len(names) != len(depths):
        raise ValueError(
            f"depths {list(depths)} and num_heads {list(num_heads)} must name the same stages, "
            f"at most {len(STAGES)}"
        )
    if unknown := [name for name in out_features if name not in names]:
        raise ValueError(f"out_features has {unknown}; expected some of {list(names)}")
    if extra := [name for name in norm_features if name not in out_features]:
        raise ValueError(f"norm_features has {extra}, which out_features does not return")
