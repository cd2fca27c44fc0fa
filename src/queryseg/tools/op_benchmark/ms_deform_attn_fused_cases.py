"""Cases of the fused multi-scale deformable attention: from the linear layers to the result."""

import torch
from torch import Tensor

from queryseg.ops import ms_deform_attn, ms_deform_attn_fused
from queryseg.tools.op_benchmark.case import Case, Contender
from queryseg.tools.op_benchmark.ms_deform_attn_cases import (
    CHANNELS,
    HEADS,
    LEVELS,
    POINTS,
    costs,
    encoder_points,
)


def plain_path(
    value: Tensor,
    shapes: list[tuple[int, int]],
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
) -> Tensor:
    """Softmax and locations in torch, then the plain operator."""
    sizes = torch.tensor([(width, height) for height, width in shapes], device=value.device)
    locations = reference[:, :, None, :, None] + offsets / sizes[:, None]
    weights = logits.flatten(-2).softmax(-1).view(logits.shape)
    return ms_deform_attn(value, shapes, locations, weights)


def contenders(size: str, queries: int | None, device: torch.device) -> list[Contender]:
    shapes = LEVELS[size]
    generator = torch.Generator().manual_seed(0)
    tokens = sum(height * width for height, width in shapes)
    points = (
        encoder_points(shapes)
        if queries is None
        else torch.rand(queries, 2, generator=torch.Generator().manual_seed(1))
    )

    def normal(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator).to(device)

    value = normal(tokens, HEADS, CHANNELS)
    reference = points[None, :, None].to(device).expand(-1, -1, len(shapes), -1)
    offsets = 2 * normal(len(points), HEADS, len(shapes), POINTS, 2)
    logits = normal(len(points), HEADS, len(shapes), POINTS)
    half = value.bfloat16()
    rows = offsets.bfloat16(), logits.bfloat16()
    return [
        Contender(
            "queryseg, fused",
            lambda: ms_deform_attn_fused(value, shapes, reference, offsets, logits),
            (value, offsets, logits),
        ),
        Contender(
            "softmax, locations, queryseg",
            lambda: plain_path(value, shapes, reference, offsets, logits),
            (value, offsets, logits),
        ),
        Contender(
            "queryseg, fused, bfloat16 value",
            lambda: ms_deform_attn_fused(half, shapes, reference, offsets, logits),
            (half, offsets, logits),
        ),
        Contender(
            "queryseg, fused, all bfloat16",
            lambda: ms_deform_attn_fused(half, shapes, reference, *rows),
            (half, *rows),
        ),
    ]


def case(name: str, size: str, queries: int | None) -> Case:
    return Case(
        "ms_deform_attn_fused",
        name,
        lambda device: contenders(size, queries, device),
        costs=lambda: costs(size, queries),
    )


CASES = [
    case("encoder_800x1333", "800x1333", None),
    case("decoder_800x1333", "800x1333", 300),
    case("encoder_480x640", "480x640", None),
]
