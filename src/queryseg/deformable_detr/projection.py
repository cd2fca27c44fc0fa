"""From backbone maps to a pyramid of one width (Deformable DETR, appendix A.2)."""

from collections.abc import Mapping

from torch import Tensor, nn


class PyramidProjection(nn.Module):
    """A 1x1 convolution and a group norm on each backbone map, and coarser levels made from them.

    The first extra level is a 3x3 convolution of stride 2 on the last backbone map itself, any
    further one on the level before.

    Args:
        in_channels: backbone feature name -> channels, finest first.
        embed_dim: C of the pyramid, a multiple of `norm_groups`.
        num_levels: L; as many extra levels as there are more than features.
        bias: whether the convolutions have one (H-DETR and DINO do, SOIT does not).
        norm_groups: groups of the norm.

    Raises:
        ValueError: fewer levels than features.
    """

    def __init__(
        self,
        *,
        in_channels: Mapping[str, int],
        embed_dim: int = 256,
        num_levels: int = 4,
        bias: bool = True,
        norm_groups: int = 32,
    ) -> None:
        super().__init__()
        if num_levels < len(in_channels):
            raise ValueError(f"{num_levels} levels cannot hold the {len(in_channels)} features")
        self.in_features = tuple(in_channels)
        widths = list(in_channels.values())
        convs = [nn.Conv2d(width, embed_dim, 1, bias=bias) for width in widths]
        for width in [widths[-1], *[embed_dim] * num_levels][: num_levels - len(widths)]:
            convs.append(nn.Conv2d(width, embed_dim, 3, stride=2, padding=1, bias=bias))
        self.levels = nn.ModuleList(
            nn.Sequential(conv, nn.GroupNorm(norm_groups, embed_dim)) for conv in convs
        )
        for conv in convs:
            nn.init.xavier_uniform_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Backbone maps to L maps (B, C, h, w), finest first."""
        count = len(self.in_features)
        maps = [level(features[name]) for level, name in zip(self.levels, self.in_features)]
        source = features[self.in_features[-1]]
        for level in self.levels[count:]:
            source = level(source)
            maps.append(source)
        return maps
