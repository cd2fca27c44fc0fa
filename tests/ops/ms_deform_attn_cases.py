"""Inputs for the tests of ms_deform_attn, and implementations that share no code with it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = [(1, 1), (1, 9), (7, 1), (5, 6), (3, 4), (8, 5), (2, 2)]


@dataclass
class Case:
    """Arguments of one call."""

    value: Tensor
    shapes: list[tuple[int, int]]
    locations: Tensor
    weights: Tensor

    @property
    def sizes(self) -> list[int]:
        return [size for shape in self.shapes for size in shape]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.value, self.locations, self.weights

    def to(self, value_dtype: torch.dtype, point_dtype: torch.dtype) -> "Case":
        return Case(
            self.value.to(value_dtype),
            self.shapes,
            self.locations.to(point_dtype),
            self.weights.to(point_dtype),
        )


def make_case(
    seed: int,
    *,
    batch: int = 2,
    queries: int = 6,
    heads: int = 2,
    channels: int = 4,
    levels: int = 2,
    points: int = 3,
    shapes: list[tuple[int, int]] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Case:
    """Values of order one, a tenth of the points off the map on each side."""
    generator = torch.Generator().manual_seed(seed)
    if shapes is None:
        picks = torch.randint(len(LEVELS), (levels,), generator=generator).tolist()
        shapes = [LEVELS[pick] for pick in picks]
    tokens = sum(height * width for height, width in shapes)
    levels = len(shapes)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    locations = torch.rand(
        batch, queries, heads, levels, points, 2, generator=generator, dtype=torch.float64
    )
    return Case(
        normal(batch, tokens, heads, channels),
        shapes,
        (1.4 * locations - 0.2).to(dtype),
        normal(batch, queries, heads, levels, points),
    )


def random_case(seed: int) -> Case:
    """Any batch, query, head, level and point count, and layouts that are not contiguous."""
    generator = torch.Generator().manual_seed(10_000 + seed)

    def pick(*options: int) -> int:
        return options[int(torch.randint(len(options), (), generator=generator))]

    channels = pick(1, 4, 30, 32, 71, 256)
    case = make_case(
        seed,
        batch=pick(*range(10)),
        queries=pick(0, 1, 2, 5, 17, 50) if channels < 71 else pick(0, 1, 3),
        heads=pick(1, 2, 3, 8) if channels < 71 else pick(1, 2),
        channels=channels,
        levels=pick(1, 2, 3, 4, 5),
        points=pick(*range(1, 9)),
    )
    layout = pick(0, 1, 2)
    if layout == 1:
        case.value = case.value.transpose(1, 2).contiguous().transpose(1, 2)
        case.locations = case.locations.flip(-1).contiguous().flip(-1)
        case.weights = case.weights.transpose(1, 3).contiguous().transpose(1, 3)
    elif layout == 2:
        case.value = torch.stack([case.value, case.value], dim=-1)[..., 1]
        case.locations = torch.cat([case.locations, case.locations], dim=1)[:, ::2][
            :, : case.weights.shape[1]
        ]
        case.weights = case.weights[:, : case.locations.shape[1]]
    return case


def naive(case: Case) -> Tensor:
    """The definition, one scalar at a time."""
    batch, _, heads, channels = case.value.shape
    queries, points = case.locations.shape[1], case.locations.shape[4]
    output = torch.zeros(batch, queries, heads, channels, dtype=case.value.dtype)
    for b in range(batch):
        for q in range(queries):
            for m in range(heads):
                start = 0
                for level, (height, width) in enumerate(case.shapes):
                    for p in range(points):
                        x, y = case.locations[b, q, m, level, p].tolist()
                        x, y = x * width - 0.5, y * height - 0.5
                        weight = case.weights[b, q, m, level, p]
                        for row in (math.floor(y), math.floor(y) + 1):
                            for column in (math.floor(x), math.floor(x) + 1):
                                if 0 <= row < height and 0 <= column < width:
                                    near = (1 - abs(y - row)) * (1 - abs(x - column))
                                    token = start + row * width + column
                                    output[b, q, m] += weight * near * case.value[b, token, m]
                    start += height * width
    return output.flatten(2)


BUGS = (
    "corners aligned",
    "border repeated",
    "x and y swapped",
    "height and width swapped",
    "nearest pixel",
    "weights of another head",
    "half pixel missing",
    "wrong level start",
    "border ignored",
    "lost additions",
)


def gathered(case: Case, bug: str = "") -> Tensor:
    """By indexing, with autograd; with one of `BUGS` when asked."""
    batch, tokens, heads, channels = case.value.shape
    queries = case.locations.shape[1]
    weights = case.weights.roll(1, 2) if bug == "weights of another head" else case.weights
    locations = case.locations.flip(-1) if bug == "x and y swapped" else case.locations
    by_token = case.value.permute(1, 0, 2, 3)
    image = torch.arange(batch).view(-1, 1, 1, 1)
    head = torch.arange(heads).view(1, 1, -1, 1)
    total = case.value.new_zeros(batch, queries, heads, channels)
    start = 0
    for level, (height, width) in enumerate(case.shapes):
        rows, columns = (width, height) if bug == "height and width swapped" else (height, width)
        at = locations[:, :, :, level]
        scale = torch.tensor([columns, rows], dtype=at.dtype)
        if bug == "corners aligned":
            at = at * (scale - 1)
        elif bug == "half pixel missing":
            at = at * scale
        else:
            at = at * scale - 0.5
        if bug == "nearest pixel":
            at = at.round()
        corner = at.floor()
        inside = at - corner
        for down in (0, 1):
            for right in (0, 1):
                column = corner[..., 0].long() + right
                row = corner[..., 1].long() + down
                near_x = inside[..., 0] if right else 1 - inside[..., 0]
                near_y = inside[..., 1] if down else 1 - inside[..., 1]
                visible = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
                if bug == "border repeated":
                    visible = torch.ones_like(visible)
                    row, column = row.clamp(0, rows - 1), column.clamp(0, columns - 1)
                token = start + row * columns + column
                if bug == "border ignored":
                    visible = (token >= 0) & (token < tokens)
                sample = by_token[token.clamp(0, tokens - 1), image, head]
                factor = weights[:, :, :, level] * near_x * near_y * visible
                total = total + (factor.unsqueeze(-1) * sample).sum(3)
        start += height * width + (1 if bug == "wrong level start" else 0)
    return total.flatten(2)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Of the whole tensors, in the L2 norm; zero if both are empty or zero."""
    expected = expected.double()
    scale = expected.norm().item()
    difference = (got.double() - expected).norm().item()
    return difference / scale if scale > 0 else difference
