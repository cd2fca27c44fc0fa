"""The pyramid P2 to P5 over the maps of a backbone that has none."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F


class FeaturePyramid(nn.Module):
    """Lateral 1x1 convolutions, top-down sums, 3x3 convolutions (Lin et al., FPN).

    Args:
        in_channels: backbone feature name -> channels, finest first, strides 4, 8, ...
        channels: of every level.
    """

    def __init__(self, *, in_channels: Mapping[str, int], channels: int = 256) -> None:
        super().__init__()
        self.names = tuple(in_channels)
        self.laterals = nn.ModuleList(nn.Conv2d(n, channels, 1) for n in in_channels.values())
        self.outputs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels
        )
        for layer in [*self.laterals, *self.outputs]:
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Backbone maps by name to `p2`, `p3`, ..., each (B, C, H_l, W_l)."""
        levels: list[Tensor] = []
        for name, lateral in reversed(list(zip(self.names, self.laterals))):
            level = lateral(features[name])
            if levels:
                level = level + F.interpolate(levels[0], level.shape[-2:], mode="nearest")
            levels.insert(0, level)
        return {
            f"p{number}": output(level)
            for number, (output, level) in enumerate(zip(self.outputs, levels), start=2)
        }
