"""Inputs for the tests of ms_deform_attn_fused, and implementations that share no code with it."""

import math
from dataclasses import dataclass

import ms_deform_attn_cases as plain
import torch
from torch import Tensor

from queryseg.ops import ms_deform_attn_fused


@dataclass
class Case:
    """Arguments of one call."""

    value: Tensor
    shapes: list[tuple[int, int]]
    reference: Tensor
    offsets: Tensor
    logits: Tensor

    @property
    def sizes(self) -> list[int]:
        return [size for shape in self.shapes for size in shape]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.value, self.reference, self.offsets, self.logits

    def with_tensors(self, tensors: "tuple[Tensor, ...] | list[Tensor]") -> "Case":
        value, reference, offsets, logits = tensors
        return Case(value, self.shapes, reference, offsets, logits)

    def to(self, dtype: torch.dtype) -> "Case":
        return self.with_tensors([tensor.to(dtype) for tensor in self.tensors()])

    def output(self) -> Tensor:
        return ms_deform_attn_fused(
            self.value, self.shapes, self.reference, self.offsets, self.logits
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
    reference_dim: int = 2,
    shapes: list[tuple[int, int]] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Case:
    """Values of order one; points within a few cells or half a box, some of them off the map."""
    generator = torch.Generator().manual_seed(seed)
    if shapes is None:
        picks = torch.randint(len(plain.LEVELS), (levels,), generator=generator).tolist()
        shapes = [plain.LEVELS[pick] for pick in picks]
    tokens = sum(height * width for height, width in shapes)
    levels = len(shapes)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    reference = torch.rand(batch, queries, levels, reference_dim, generator=generator).to(dtype)
    spread = 1.5 if reference_dim == 2 else 0.7 * points
    return Case(
        normal(batch, tokens, heads, channels),
        shapes,
        reference,
        spread * normal(batch, queries, heads, levels, points, 2),
        2 * normal(batch, queries, heads, levels, points),
    )


def random_case(seed: int) -> Case:
    """Any batch, query, head, level and point count, points and boxes, and strided layouts."""
    generator = torch.Generator().manual_seed(20_000 + seed)

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
        reference_dim=pick(2, 4),
    )
    layout = pick(0, 1, 2)
    if layout == 1:
        return in_one_layer(case)
    if layout == 2:
        case.value = case.value.transpose(1, 2).contiguous().transpose(1, 2)
        case.reference = case.reference.flip(-1).mT.contiguous().mT.flip(-1)
        case.offsets = case.offsets.transpose(2, 3).contiguous().transpose(2, 3)
        case.logits = case.logits.transpose(1, 4).contiguous().transpose(1, 4)
    return case


def in_one_layer(case: Case) -> Case:
    """The same case with offsets and logits as views of the output of one linear layer, and with
    reference points that all images and levels share."""
    batch, queries = case.logits.shape[:2]
    rows = torch.cat([case.logits.flatten(2), case.offsets.flatten(2)], dim=-1)
    points = math.prod(case.logits.shape[2:])
    logits, offsets = rows.split([points, 2 * points], dim=-1)
    reference = case.reference[:1, :, :1].expand(batch, -1, case.reference.shape[2], -1)
    return Case(
        case.value,
        case.shapes,
        reference,
        offsets.view(batch, queries, *case.offsets.shape[2:]),
        logits.view(batch, queries, *case.logits.shape[2:]),
    )


def naive(case: Case) -> Tensor:
    """The definition, one scalar at a time."""
    locations = torch.empty_like(case.offsets)
    weights = torch.empty_like(case.logits)
    batch, queries, heads, levels, points = case.logits.shape
    for b in range(batch):
        for q in range(queries):
            for m in range(heads):
                powers = [
                    [math.exp(case.logits[b, q, m, level, p]) for p in range(points)]
                    for level in range(levels)
                ]
                for level, (height, width) in enumerate(case.shapes):
                    x, y, *box = case.reference[b, q, level].tolist()
                    for p in range(points):
                        weights[b, q, m, level, p] = powers[level][p] / sum(map(sum, powers))
                        dx, dy = case.offsets[b, q, m, level, p].tolist()
                        if box:
                            dx, dy = dx / points * box[0] / 2, dy / points * box[1] / 2
                        else:
                            dx, dy = dx / width, dy / height
                        locations[b, q, m, level, p, 0] = x + dx
                        locations[b, q, m, level, p, 1] = y + dy
    return plain.naive(plain.Case(case.value, case.shapes, locations, weights))


BUGS = (
    "softmax by level",
    "softmax over heads",
    "softmax without its normaliser",
    "logits of another head",
    "offsets of another point",
    "offsets swapped",
    "offsets not scaled",
    "offsets scaled by height and width",
    "reference of another level",
    "reference of another image",
    "reference of another query",
)
BOX_BUGS = (
    "width and height of the box swapped",
    "whole box instead of half",
    "not divided by the points",
    "box read as a point",
)


def gathered(case: Case, bug: str = "") -> Tensor:
    """By indexing, with autograd; with one of `BUGS`, `BOX_BUGS` or the plain op's when asked."""
    logits, offsets, reference = case.logits, case.offsets, case.reference
    if bug == "logits of another head":
        logits = logits.roll(1, 2)
    elif bug == "offsets of another point":
        offsets = offsets.roll(1, 4)
    elif bug == "offsets swapped":
        offsets = offsets.flip(-1)
    elif bug == "reference of another level":
        reference = reference.roll(1, 2)
    elif bug == "reference of another image":
        reference = reference.roll(1, 0)
    elif bug == "reference of another query":
        reference = reference.roll(1, 1)
    powers = logits.exp()
    axes = {"softmax by level": (-1,), "softmax over heads": (2, -2, -1)}.get(bug, (-2, -1))
    total = powers.sum(axes, keepdim=True)
    weights = powers if bug == "softmax without its normaliser" else powers / total
    order = (0, 1) if bug == "offsets scaled by height and width" else (1, 0)
    cells = torch.tensor([[shape[i] for i in order] for shape in case.shapes], dtype=offsets.dtype)
    extents = 1 / cells[None, None, :].expand(*reference.shape[:3], 2)
    if bug == "offsets not scaled":
        extents = torch.ones_like(extents)
    if reference.shape[-1] == 4 and bug != "box read as a point":
        extents = reference[..., 2:] / 2 / offsets.shape[4]
        if bug == "width and height of the box swapped":
            extents = extents.flip(-1)
        elif bug == "whole box instead of half":
            extents = extents * 2
        elif bug == "not divided by the points":
            extents = extents * offsets.shape[4]
    locations = reference[:, :, None, :, None, :2] + offsets * extents[:, :, None, :, None]
    inner = bug if bug in plain.BUGS else ""
    return plain.gathered(plain.Case(case.value, case.shapes, locations, weights), inner)
