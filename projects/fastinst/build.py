"""Parts of FastInst by name, so that a config override can exchange them."""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from queryseg.projects.fastinst.activation_queries import ActivationQueries, LocalMaximum
from queryseg.projects.fastinst.deformable_pixel_decoder import DeformablePixelDecoder
from queryseg.projects.fastinst.encoder_top import EncoderTop
from queryseg.projects.fastinst.fpn import FPN, PlainTop
from queryseg.projects.fastinst.positions import LearnedPositions, SinePositions
from queryseg.projects.fastinst.pyramid_pooling import PyramidPooling
from queryseg.projects.fastinst.static_queries import LearnedQueries, ResizedQueries

PixelDecoderKind = Literal["fpn", "ppm_fpn", "encoder_fpn", "ms_deform_attn"]
QueryKind = Literal["activation", "learned", "zero", "resized"]
PositionKind = Literal["learned", "sine"]


def build_pixel_decoder(
    *, kind: PixelDecoderKind, in_channels: Mapping[str, int], embed_dim: int
) -> nn.Module:
    """A pixel decoder (Table 5).

    Args:
        kind: "fpn"; with pyramid pooling ("ppm_fpn") or a Transformer encoder ("encoder_fpn") on
            the coarsest map; or "ms_deform_attn", a deformable encoder over all levels.
        in_channels: backbone feature name -> channels, finest first.
        embed_dim: C of the pyramid.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "ms_deform_attn":
        return DeformablePixelDecoder(in_channels=in_channels, embed_dim=embed_dim)
    tops = {"fpn": PlainTop, "ppm_fpn": PyramidPooling, "encoder_fpn": EncoderTop}
    if kind not in tops:
        raise ValueError(
            f"pixel decoder kind is {kind!r}; expected one of {', '.join(tops)}, ms_deform_attn"
        )
    coarsest = list(in_channels.values())[-1]
    top = tops[kind](in_channels=coarsest, embed_dim=embed_dim)
    return FPN(in_channels=in_channels, embed_dim=embed_dim, top=top)


def build_queries(
    *,
    kind: QueryKind,
    embed_dim: int,
    num_classes: int,
    num_queries: int,
    level: int = 1,
    local_maximum: LocalMaximum = "own_class",
) -> nn.Module:
    """A way of choosing the initial queries (Tables 2 and 6e).

    Args:
        kind: "activation", "learned", "zero" or "resized".
        embed_dim: C.
        num_classes: K.
        num_queries: N_a.
        level: pyramid level of activation and resized queries, 0 the finest.
        local_maximum: what activation queries compare a pixel with.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "activation":
        return ActivationQueries(
            embed_dim=embed_dim,
            num_classes=num_classes,
            num_queries=num_queries,
            level=level,
            local_maximum=local_maximum,
        )
    if kind in ("learned", "zero"):
        return LearnedQueries(
            embed_dim=embed_dim, num_queries=num_queries, zero_content=kind == "zero"
        )
    if kind == "resized":
        return ResizedQueries(num_queries=num_queries, level=level)
    raise ValueError(
        f"query kind is {kind!r}; expected 'activation', 'learned', 'zero' or 'resized'"
    )


def build_positions(*, kind: PositionKind, embed_dim: int, num_queries: int) -> nn.Module:
    """Positional embeddings of pixels and picked queries (Table 7).

    Args:
        kind: "learned" or "sine".
        embed_dim: C.
        num_queries: N_a, which sets the side of the learned grid.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "learned":
        return LearnedPositions(embed_dim=embed_dim, num_queries=num_queries)
    if kind == "sine":
        return SinePositions(embed_dim=embed_dim)
    raise ValueError(f"position kind is {kind!r}; expected 'learned' or 'sine'")
