"""FocalNet: modulation with the context at several ranges, in the place of attention."""

from collections.abc import Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

STEM = {"kernel_size": 7, "stride": 4, "padding": 2}
DOWN = {"kernel_size": 3, "stride": 2, "padding": 1}


class FocalNet(Backbone):
    """FocalNet (Yang et al., 2022) with overlapping patches and norms behind the branches.

    These are the choices of the "large" models that detectors use. Maps are called as those of
    a ResNet: `res2` has stride 4, `res5` stride 32. Parameters carry the official names.

    Args:
        embed_dim: channels of the first stage; they double with every stage.
        depths: blocks in each stage.
        focal_levels: depthwise convolutions in a row, in each block.
        focal_window: side of the first convolution's kernel; each next one is wider by two.
        mlp_ratio: hidden width of the MLPs, in channels.
        layer_scale: initial factor on each branch, one a channel.
        drop_path_rate: largest probability of leaving out a branch in training; it grows from zero
            with the depth.
        out_features: names of the maps to return.
        norm_features: those that get a layer norm of their own, `norm0` to `norm3`; None is all.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 192,
        depths: Sequence[int] = (2, 2, 18, 2),
        focal_levels: int = 4,
        focal_window: int = 3,
        mlp_ratio: float = 4.0,
        layer_scale: float = 1e-4,
        drop_path_rate: float = 0.3,
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        norm_features: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(3, embed_dim, **STEM)
        blocks = max(sum(depths) - 1, 1)
        rates = iter([drop_path_rate * block / blocks for block in range(sum(depths))])
        self.layers = nn.ModuleList()
        self._out_features = list(out_features)
        self._out_feature_channels = {}
        self._out_feature_strides = {}
        for index, depth in enumerate(depths):
            channels = embed_dim * 2**index
            self.layers.append(
                FocalStage(
                    channels,
                    drop_rates=list(islice(rates, depth)),
                    focal_levels=focal_levels,
                    focal_window=focal_window,
                    mlp_ratio=mlp_ratio,
                    layer_scale=layer_scale,
                    downsample=index < len(depths) - 1,
                )
            )
            name = f"res{index + 2}"
            self._out_feature_channels[name] = channels
            self._out_feature_strides[name] = 4 * 2**index
            if name in (out_features if norm_features is None else norm_features):
                self.add_module(f"norm{index}", nn.LayerNorm(channels))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) to maps (B, C, h, w) by name; sides are rounded up."""
        maps: dict[str, Tensor] = {}
        x = self.patch_embed(x)
        for index, stage in enumerate(self.layers):
            name = f"res{index + 2}"
            assert isinstance(stage, FocalStage)
            x = stage(x)
            if name in self._out_features:
                norm = getattr(self, f"norm{index}", nn.Identity())
                maps[name] = norm(x).movedim(-1, 1).contiguous()
            if stage.downsample is not None:
                x = stage.downsample(x.movedim(-1, 1))
        return maps

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of the returned maps."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }


class PatchEmbed(nn.Module):
    """A strided convolution and a norm; the input is padded to whole strides with zeros."""

    def __init__(
        self, in_channels: int, channels: int, *, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__()
        self.stride = stride
        self.proj = nn.Conv2d(in_channels, channels, kernel_size, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, h, w, C')."""
        height, width = x.shape[-2:]
        right, bottom = -width % self.stride, -height % self.stride
        if right or bottom:
            x = F.pad(x, (0, right, 0, bottom))
        return self.norm(self.proj(x).movedim(1, -1))


class FocalStage(nn.Module):
    """The blocks of one resolution, and the way to the next."""

    def __init__(
        self,
        channels: int,
        *,
        drop_rates: Sequence[float],
        focal_levels: int,
        focal_window: int,
        mlp_ratio: float,
        layer_scale: float,
        downsample: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            FocalBlock(
                channels,
                focal_levels=focal_levels,
                focal_window=focal_window,
                mlp_ratio=mlp_ratio,
                layer_scale=layer_scale,
                drop_rate=rate,
            )
            for rate in drop_rates
        )
        self.downsample = PatchEmbed(channels, 2 * channels, **DOWN) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same, before the way to the next resolution."""
        for block in self.blocks:
            x = block(x)
        return x


class FocalBlock(nn.Module):
    """Modulation and an MLP, each normalised, scaled and added."""

    def __init__(
        self,
        channels: int,
        *,
        focal_levels: int,
        focal_window: int,
        mlp_ratio: float,
        layer_scale: float,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.modulation = FocalModulation(channels, focal_levels, focal_window)
        self.norm1 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        self.norm2 = nn.LayerNorm(channels)
        self.gamma_1 = nn.Parameter(torch.full((channels,), layer_scale))
        self.gamma_2 = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = StochasticDepth(drop_rate, "row")

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        x = x + self.drop_path(self.gamma_1 * self.norm1(self.modulation(x)))
        return x + self.drop_path(self.gamma_2 * self.norm2(self.mlp(x)))


class FocalModulation(nn.Module):
    """Each cell is multiplied by what its surroundings say, gathered at growing ranges and gated.

    A row of depthwise convolutions widens the context step by step; the last step is the mean over
    the map. Gates, one a cell and step, choose among them (equations 4 to 7 of the paper).

    Args:
        channels: C.
        focal_levels: number of convolutions.
        focal_window: kernel side of the first.
    """

    def __init__(self, channels: int, focal_levels: int, focal_window: int) -> None:
        super().__init__()
        self.f = nn.Linear(channels, 2 * channels + focal_levels + 1)
        self.h = nn.Conv2d(channels, channels, 1)
        self.proj = nn.Linear(channels, channels)
        self.focal_layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels, bias=False),
                nn.GELU(),
            )
            for side in range(focal_window, focal_window + 2 * focal_levels, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        channels, levels = x.shape[-1], len(self.focal_layers)
        mixed = self.f(x).movedim(-1, 1)
        query, context, gates = mixed.split((channels, channels, levels + 1), dim=1)
        modulator = torch.zeros_like(query)
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            modulator = modulator + context * gates[:, level : level + 1]
        whole = F.gelu(context.mean((2, 3), keepdim=True))
        modulator = modulator + whole * gates[:, levels:]
        return self.proj((query * self.h(modulator)).movedim(1, -1))


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same."""
        return self.fc2(F.gelu(self.fc1(x)))
