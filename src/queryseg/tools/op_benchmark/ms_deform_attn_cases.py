"""Cases of multi-scale deformable attention: the shapes of a detector with stride 8 to 64."""

import importlib
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from queryseg.ops import ms_deform_attn
from queryseg.tools.op_benchmark.case import Case, Contender, Cost

LEVELS = {
    "800x1333": [(100, 167), (50, 84), (25, 42), (13, 21)],
    "480x640": [(60, 80), (30, 40), (15, 20), (8, 10)],
}
HEADS, POINTS, CHANNELS = 8, 4, 32


def baseline() -> tuple[str, Callable[..., Tensor]]:
    """The name and the function of what models run today without the 2020 CUDA kernel.

    The transformers package itself where it is installed, else its formulation.
    """
    if importlib.util.find_spec("transformers") is None:
        return "grid_sample", grid_sample_path
    detr = importlib.import_module("transformers.models.deformable_detr.modeling_deformable_detr")
    attention = detr.MultiScaleDeformableAttention()

    def transformers_path(
        value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor
    ) -> Tensor:
        # What the path of grid_sample does not read, the module takes all the same.
        unused, step = torch.empty(0), 64
        return attention(value, unused, shapes, unused, locations, weights, step)

    return "grid_sample of transformers", transformers_path


def grid_sample_path(
    value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """The formulation of Deformable DETR, as in the transformers package.

    Every level is sampled by `grid_sample`, all samples are stacked, then weighted and summed.
    """
    batch, _, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    grids = 2 * locations - 1
    samples = []
    for level, (level_value, (height, width)) in enumerate(
        zip(value.split([height * width for height, width in shapes], dim=1), shapes)
    ):
        maps = level_value.flatten(2).transpose(1, 2)
        maps = maps.reshape(batch * heads, channels, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        samples.append(
            F.grid_sample(maps, grid, "bilinear", padding_mode="zeros", align_corners=False)
        )
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, len(shapes) * points)
    output = (torch.stack(samples, dim=-2).flatten(-2) * weights).sum(-1)
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()


def encoder_points(shapes: list[tuple[int, int]]) -> Tensor:
    """The centre (x, y) of every token, (S, 2)."""
    grids = []
    for height, width in shapes:
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) / height,
            (torch.arange(width) + 0.5) / width,
            indexing="ij",
        )
        grids.append(torch.stack([x, y], -1).view(-1, 2))
    return torch.cat(grids)


def make_inputs(
    shapes: list[tuple[int, int]], references: Tensor, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, locations a few pixels around the references, and softmaxed weights; one image."""
    generator = torch.Generator().manual_seed(0)
    tokens = sum(height * width for height, width in shapes)
    queries, levels = len(references), len(shapes)
    size = torch.tensor([[width, height] for height, width in shapes]).view(1, 1, -1, 1, 2)
    offsets = torch.randn(queries, HEADS, levels, POINTS, 2, generator=generator)
    locations = references.view(-1, 1, 1, 1, 2) + 2 * offsets / size
    logits = torch.randn(queries, HEADS, levels * POINTS, generator=generator)
    weights = logits.softmax(-1).view(queries, HEADS, levels, POINTS)
    value = torch.randn(1, tokens, HEADS, CHANNELS, generator=generator)
    return value.to(device), locations[None].to(device), weights[None].to(device)


def contenders(size: str, queries: int | None, device: torch.device) -> list[Contender]:
    shapes = LEVELS[size]
    if queries is None:
        references = encoder_points(shapes)
    else:
        references = torch.rand(queries, 2, generator=torch.Generator().manual_seed(1))
    inputs = make_inputs(shapes, references, device)
    value, locations, weights = inputs
    half = value.bfloat16()
    name, today = baseline()
    return [
        Contender("queryseg", lambda: ms_deform_attn(value, shapes, locations, weights), inputs),
        Contender(name, lambda: today(value, shapes, locations, weights), inputs),
        Contender(
            "queryseg, bfloat16 value",
            lambda: ms_deform_attn(half, shapes, locations, weights),
            (half, locations, weights),
        ),
    ]


def costs(size: str, queries: int | None) -> dict[str, Cost]:
    """In float32: 8 operations a sample and channel forward, 17 backward."""
    tokens = sum(height * width for height, width in LEVELS[size])
    rows = HEADS * (tokens if queries is None else queries)
    samples = rows * len(LEVELS[size]) * POINTS
    value, points, output = 4 * tokens * HEADS * CHANNELS, 12 * samples, 4 * rows * CHANNELS
    corners = 16 * samples * CHANNELS
    forward = Cost(8 * samples * CHANNELS, value + points + output, corners)
    backward = Cost(17 * samples * CHANNELS, 2 * value + 2 * points + output, 2 * corners)
    return {"forward": forward, "forward_backward": forward + backward}


def case(name: str, size: str, queries: int | None) -> Case:
    return Case(
        "ms_deform_attn",
        name,
        lambda device: contenders(size, queries, device),
        costs=lambda: costs(size, queries),
    )


CASES = [
    case("encoder_800x1333", "800x1333", None),
    case("decoder_800x1333", "800x1333", 300),
    case("encoder_480x640", "480x640", None),
    case("decoder_480x640", "480x640", 300),
]
