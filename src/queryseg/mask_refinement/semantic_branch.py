"""Convolutions that sharpen the finest map before nodes are pooled from it (release only)."""

from collections.abc import Sequence

from torch import Tensor, nn


class SemanticBranch(nn.Module):
    """Four 3x3 convolutions on the finest map, added to it, and a foreground classifier on them.

    The paper does not speak of it; the released code has it inside its pooler.

    Args:
        channels: C of the maps.
        num_convs: convolutions, with ReLU between them.
    """

    def __init__(self, *, channels: int = 256, num_convs: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(num_convs):
            conv = nn.Conv2d(channels, channels, 3, padding=1)
            nn.init.xavier_uniform_(conv.weight)
            layers += [conv, nn.ReLU()] if number < num_convs - 1 else [conv]
        self.convs = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(channels, 1, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Sharpen the first map.

        Args:
            maps: (B, C, H_l, W_l), finest first.

        Returns:
            The maps, the first one changed; and the semantic features (B, C, H_0, W_0).
        """
        semantic = self.convs(maps[0])
        return [maps[0] + semantic, *maps[1:]], semantic
