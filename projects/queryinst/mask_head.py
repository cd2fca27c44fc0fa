"""The mask head of a stage: box features and query in, a small mask out."""

from typing import Literal

from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

from queryseg.projects.queryinst.dynamic_conv import DynamicConv

MaskInit = Literal["as_run", "as_intended"]


class MaskHead(nn.Module):
    """A dynamic convolution, four convolutions, an upsampling and class-specific logits (eq. 3).

    Each convolution has both a bias and a batch norm over the positive boxes of the process, as in
    the release.

    Args:
        embed_dim: C.
        num_classes: K.
        resolution: cells on each side of the box features; masks have twice as many.
        dynamic_dim: D of the dynamic convolution.
        num_convs: convolutions before the upsampling.
        dynamic: whether the query filters the box features first. Without it this is the mask head
            of Mask R-CNN (equation 2).
        receives_flow: whether features of the stage before are added (mask flow of HTC), through a
            1x1 convolution.
        init: "as_run": what the release's training starts from; "as_intended": what its
            initialisation, which is never called, would make of it: Xavier-uniform weights.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_classes: int,
        resolution: int = 14,
        dynamic_dim: int = 64,
        num_convs: int = 4,
        dynamic: bool = True,
        receives_flow: bool = False,
        init: MaskInit = "as_run",
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.dynamic_conv = (
            DynamicConv(embed_dim=embed_dim, hidden_dim=dynamic_dim) if dynamic else None
        )
        self.flow = Conv2d(embed_dim, embed_dim, 1, activation=F.relu) if receives_flow else None
        self.convs = nn.ModuleList(
            Conv2d(
                embed_dim,
                embed_dim,
                3,
                padding=1,
                norm=nn.BatchNorm2d(embed_dim),
                activation=F.relu,
            )
            for _ in range(num_convs)
        )
        self.upsample = nn.ConvTranspose2d(embed_dim, embed_dim, 2, stride=2)
        self.classifier = nn.Conv2d(embed_dim, num_classes, 1)
        self._initialise(init)

    def forward(
        self, box_feats: Tensor, mask_queries: Tensor, previous: Tensor | None = None
    ) -> Tensor:
        """Features behind the stack of convolutions, before `upsampled` and `logits_of`.

        Args:
            box_feats: (N, R * R, C), one row a cell.
            mask_queries: (N, C).
            previous: (N, C, R, R) of the stage before, where there is mask flow.

        Returns:
            (N, C, R, R).
        """
        if self.dynamic_conv is not None:
            box_feats = self.dynamic_conv(box_feats, mask_queries)
        # Channels stay last in memory: no copy, and the layout that convolutions are fastest in.
        x = box_feats.unflatten(1, (self.resolution, self.resolution)).permute(0, 3, 1, 2)
        if self.flow is not None and previous is not None:
            x = x + self.flow(previous)
        for conv in self.convs:
            x = conv(x)
        return x

    def upsampled(self, conv_features: Tensor) -> Tensor:
        """(N, C, R, R) to (N, C, 2 R, 2 R)."""
        return self.upsample(conv_features).relu()

    def logits_of(self, upsampled: Tensor, labels: Tensor) -> Tensor:
        """Mask logits of one class for each mask, without computing those of the others.

        Args:
            upsampled: (N, C, 2 R, 2 R).
            labels: (N,) int64.

        Returns:
            (N, 2 R, 2 R).
        """
        weight = self.classifier.weight[labels].flatten(1)[:, None]
        logits = (weight @ upsampled.flatten(2))[:, 0] + self.classifier.bias[labels, None]
        return logits.unflatten(1, upsampled.shape[-2:])

    def _initialise(self, init: MaskInit) -> None:
        convs = [*self.convs, *([] if self.flow is None else [self.flow])]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        if init == "as_run":
            return
        if init != "as_intended":
            raise ValueError(f"mask head init is {init!r}; expected 'as_run' or 'as_intended'")
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.zeros_(self.classifier.bias)
