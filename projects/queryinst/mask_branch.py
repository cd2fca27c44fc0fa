"""The mask heads of all stages, and how features flow between them."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from queryseg.projects.queryinst.mask_head import MaskHead, MaskInit
from queryseg.projects.queryinst.roi_features import BoxFeatures

MaskFlow = Literal["none", "htc"]


class MaskBranch(nn.Module):
    """Mask heads in parallel: each reads its own stage's boxes and queries (sections 3.2 and 3.3).

    Args:
        embed_dim: C.
        num_classes: K.
        num_stages: S.
        box_features: pools the boxes, for every stage.
        dynamic_dim: D of the dynamic convolutions.
        num_convs: convolutions of a head.
        dynamic: dynamic mask heads; otherwise vanilla ones, which never look at a query (Table 4).
        parallel: train a mask head in every stage; otherwise there is only the last (Table 5).
        flow: "none", or "htc": a head adds the features that the heads of all stages before compute
            on its own boxes (Table 4). The paper does not say how; here they are added to what goes
            into the first of the four convolutions.
        init: see `MaskHead`.

    Raises:
        ValueError: an unknown flow, or flow without parallel heads.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_classes: int,
        num_stages: int,
        box_features: BoxFeatures,
        dynamic_dim: int = 64,
        num_convs: int = 4,
        dynamic: bool = True,
        parallel: bool = True,
        flow: MaskFlow = "none",
        init: MaskInit = "as_run",
    ) -> None:
        super().__init__()
        if flow not in ("none", "htc"):
            raise ValueError(f"mask flow is {flow!r}; expected 'none' or 'htc'")
        if flow == "htc" and not parallel:
            raise ValueError("mask flow 'htc' needs the mask heads of all stages: parallel=true")
        self.box_features = box_features
        self.num_stages = num_stages
        self.flow = flow
        self.heads = nn.ModuleDict(
            {
                str(stage): MaskHead(
                    embed_dim=embed_dim,
                    num_classes=num_classes,
                    resolution=box_features.resolution,
                    dynamic_dim=dynamic_dim,
                    num_convs=num_convs,
                    dynamic=dynamic,
                    receives_flow=flow == "htc" and stage > 0,
                    init=init,
                )
                for stage in range(0 if parallel else num_stages - 1, num_stages)
            }
        )

    @property
    def trained_stages(self) -> list[int]:
        """Numbers of the stages that have a mask head."""
        return [int(stage) for stage in self.heads]

    @property
    def mask_side(self) -> int:
        """Cells on each side of a mask."""
        return 2 * self.box_features.resolution

    def forward(
        self,
        stage: int,
        box_feats: Tensor,
        mask_queries: Sequence[Tensor],
        labels: Tensor,
        box_idx: Tensor | None = None,
    ) -> Tensor:
        """Mask logits of boxes, each for a given class.

        Args:
            stage: number of the stage.
            box_feats: (N, R * R, C) that `box_features` pooled from the stage's boxes.
            mask_queries: (N, C) of the same slots, of every stage up to this one.
            labels: (M,) int64 class of each mask.
            box_idx: (M,) int64 box of each mask; None where M = N and each box has one.

        Returns:
            (M, 2 R, 2 R).
        """
        upsampled = self.upsampled(stage, box_feats, mask_queries)
        if box_idx is not None:
            upsampled = upsampled[box_idx]
        return self.head(stage).logits_of(upsampled, labels)

    def upsampled(self, stage: int, box_feats: Tensor, mask_queries: Sequence[Tensor]) -> Tensor:
        """(N, C, 2 R, 2 R) features that the logits of all classes are read from."""
        x: Tensor | None = None
        for before in range(0 if self.flow == "htc" else stage, stage + 1):
            x = self.head(before)(box_feats, mask_queries[before], x)
        assert x is not None
        return self.head(stage).upsampled(x)

    def head(self, stage: int) -> MaskHead:
        """The mask head of a stage."""
        head = self.heads[str(stage)]
        assert isinstance(head, MaskHead)
        return head
