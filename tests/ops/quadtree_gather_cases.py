"""Inputs for the tests of gather_nodes, and an implementation that shares no code with it."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.ops import roi_align

from queryseg.ops import gather_nodes
from queryseg.ops.quadtree_gather import cell_windows

IMAGE = 64


@dataclass
class Case:
    """Arguments of one call."""

    features: list[Tensor]
    scales: list[float]
    boxes: Tensor
    image: Tensor
    feature_level: Tensor
    grid_sizes: list[int]
    index: Tensor
    level: Tensor
    sampling_ratio: int = 0

    def to(self, dtype: torch.dtype, box_dtype: torch.dtype) -> "Case":
        features = [feature.to(dtype) for feature in self.features]
        return replace(self, features=features, boxes=self.boxes.to(box_dtype))

    def gather(self) -> Tensor:
        return gather_nodes(
            self.features,
            self.scales,
            self.boxes,
            self.image,
            self.feature_level,
            self.grid_sizes,
            self.index,
            self.level,
            sampling_ratio=self.sampling_ratio,
        )

    def output_and_grads(self) -> list[Tensor]:
        """The result, and the gradients of a weighted sum of it by the features."""
        leaves = [feature.detach().requires_grad_() for feature in self.features]
        output = replace(self, features=leaves).gather()
        weight = torch.linspace(-1, 1, output.numel()).view_as(output).to(output.dtype)
        return [output.detach(), *torch.autograd.grad((output * weight).sum(), leaves)]


def make_case(
    seed: int,
    *,
    images: int = 2,
    channels: int = 4,
    shapes: list[tuple[int, int]] | None = None,
    instances: int = 3,
    grid_sizes: list[int] | None = None,
    nodes: int = 12,
    sampling_ratio: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Case:
    """Values of order one; boxes of all sizes, some of them partly outside the image."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(16, 14), (8, 7)] if shapes is None else shapes
    grid_sizes = [2, 4, 8] if grid_sizes is None else grid_sizes

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    def pick(limit: int, *size: int) -> Tensor:
        return torch.randint(limit, size, generator=generator)

    features = [
        torch.randn(images, channels, *shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in shapes
    ]
    centres = uniform(instances, 2) * IMAGE
    sides = 2 + uniform(instances, 2) ** 2 * IMAGE
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], 1)
    level = pick(len(grid_sizes), nodes)
    cell = (uniform(nodes, 2) * torch.tensor(grid_sizes)[level].unsqueeze(1)).long()
    if nodes > 2:  # cells that share their row, and one cell twice
        cell[1, 0], level[1] = cell[0, 0], level[0]
        cell[1, 1].clamp_(max=grid_sizes[level[0]] - 1)
        cell[2], level[2] = cell[1], level[1]
    instance = pick(instances, nodes) if instances else pick(1, 0)
    if nodes > 2:
        instance[1:3] = instance[0]
    return Case(
        features,
        [shape[0] / IMAGE for shape in shapes],
        boxes.to(torch.float64 if dtype == torch.float64 else torch.float32),
        pick(images, instances),
        pick(len(shapes), instances, len(grid_sizes)),
        grid_sizes,
        torch.cat([instance.unsqueeze(1), cell], 1),
        level,
        sampling_ratio,
    )


def random_case(seed: int) -> Case:
    """Any counts, maps of one pixel or one row, and layouts that are not contiguous."""
    generator = torch.Generator().manual_seed(10_000 + seed)

    def pick(*options: int) -> int:
        return options[int(torch.randint(len(options), (), generator=generator))]

    known = [(1, 1), (1, 9), (7, 1), (5, 6), (16, 14), (9, 12), (2, 2)]
    instances = pick(0, 1, 2, 5, 9)
    case = make_case(
        seed,
        images=pick(*range(1, 6)),
        channels=pick(1, 4, 30, 32, 71, 256),
        shapes=[known[pick(*range(7))] for _ in range(pick(1, 2, 3, 4, 5))],
        instances=instances,
        grid_sizes=[pick(1, 2, 3, 7, 14) for _ in range(pick(1, 2, 3, 4))],
        nodes=pick(0, 1, 2, 17, 50) if instances else 0,
        sampling_ratio=pick(0, 0, 0, 1, 2, 3),
    )
    layout = pick(0, 1, 2)
    if layout == 1:
        case.features = [one.contiguous(memory_format=torch.channels_last) for one in case.features]
        case.boxes = case.boxes.t().contiguous().t()
        case.index = case.index.flip(1).contiguous().flip(1)
    elif layout == 2:
        case.features = [torch.stack([one, one], -1)[..., 1] for one in case.features]
        case.level = torch.stack([case.level, case.level], 1)[:, 0]
        case.feature_level = case.feature_level.t().contiguous().t()
    return case


BUGS = (
    "half pixel missing",
    "corner of the cell",
    "one sample",
    "sum of the samples",
    "nearest pixel",
    "x and y swapped",
    "row of the next cell",
    "grid of another level",
    "map of another level",
    "another image",
    "zeros outside",
    "border repeated",
    "height and width swapped",
)


def axis_weights(start: float, end: float, grid: int, cell: int, size: int, ratio: int, bug: str):
    """{pixel: weight} of one cell along one axis."""
    if bug != "half pixel missing":
        start, end = start - 0.5, end - 0.5
    length = (end - start) / grid
    samples = ratio if ratio > 0 else max(math.ceil(length), 0)
    if bug == "one sample":
        samples = min(samples, 1)
    weights: dict[int, float] = {}
    for i in range(samples):
        inside = 0.0 if bug == "corner of the cell" else 0.5
        at = start + cell * length + (i + inside) * length / samples
        if bug == "nearest pixel":
            at = float(round(at))
        if (at < -1 or at > size) and bug != "border repeated":
            continue
        if bug != "zeros outside":
            at = min(max(at, 0.0), size - 1.0)
        low = math.floor(at)
        for pixel, near in ((low, 1 - (at - low)), (low + 1, at - low)):
            if near > 0 and 0 <= pixel < size:
                share = 1 if bug == "sum of the samples" else samples
                weights[pixel] = weights.get(pixel, 0.0) + near / share
    return weights


def weight_matrix(case: Case, bug: str = "") -> Tensor:
    """(T, all pixels of all maps): the definition, one scalar at a time; with one of `BUGS`."""
    images = len(case.features[0])
    sizes = [tuple(feature.shape[2:]) for feature in case.features]
    starts = [0]
    for height, width in sizes:
        starts.append(starts[-1] + images * height * width)
    matrix = torch.zeros(len(case.index), starts[-1], dtype=torch.float64)
    for node, ((instance, y, x), level) in enumerate(zip(case.index.tolist(), case.level.tolist())):
        if bug == "x and y swapped":
            y, x = x, y
        if bug == "row of the next cell":
            y += 1
        grids = len(case.grid_sizes)
        grid = case.grid_sizes[(level + 1) % grids if bug == "grid of another level" else level]
        number = int(case.feature_level[instance, level])
        if bug == "map of another level":
            number = (number + 1) % len(sizes)
        image = int(case.image[instance])
        if bug == "another image":
            image = (image + 1) % images
        height, width = sizes[number]
        x0, y0, x1, y1 = (case.boxes[instance].double() * case.scales[number]).tolist()
        rows = axis_weights(y0, y1, grid, y, height, case.sampling_ratio, bug)
        columns = axis_weights(x0, x1, grid, x, width, case.sampling_ratio, bug)
        first = starts[number] + image * height * width
        row_step, column_step = (1, height) if bug == "height and width swapped" else (width, 1)
        for row, row_weight in rows.items():
            for column, column_weight in columns.items():
                pixel = first + row * row_step + column * column_step
                matrix[node, pixel] += row_weight * column_weight
    return matrix


def flat(features: list[Tensor]) -> Tensor:
    """All pixels of all maps, (pixels, C) float64."""
    return torch.cat([one.double().permute(0, 2, 3, 1).flatten(0, 2) for one in features])


def naive(case: Case, bug: str = "") -> Tensor:
    return weight_matrix(case, bug) @ flat(case.features)


def naive_output_and_grads(case: Case, bug: str = "") -> list[Tensor]:
    """As `Case.output_and_grads`, in float64."""
    leaves = [feature.detach().double().requires_grad_() for feature in case.features]
    output = weight_matrix(case, bug) @ flat(leaves)
    weight = torch.linspace(-1, 1, output.numel()).view_as(output).to(case.features[0].dtype)
    return [output.detach(), *torch.autograd.grad((output * weight).sum(), leaves)]


def dense(case: Case) -> Tensor:
    """torchvision's RoIAlign of every box at every grid size, indexed at the nodes."""
    rois = torch.cat([case.image.unsqueeze(1).to(case.boxes.dtype), case.boxes], 1)
    output = case.features[0].new_zeros(len(case.index), case.features[0].shape[1])
    for number, feature in enumerate(case.features):
        for level, grid in enumerate(case.grid_sizes):
            pooled = roi_align(
                feature.contiguous(), rois, grid, case.scales[number], case.sampling_ratio, True
            )
            of_map = case.feature_level[case.index[:, 0], case.level] == number
            chosen = ((case.level == level) & of_map).nonzero().squeeze(1)
            instance, y, x = case.index[chosen].unbind(1)
            output[chosen] = pooled[instance, :, y, x]
    return output


def operator_arguments(case: Case) -> tuple:
    """Arguments of the operator behind `gather_nodes`; the features are not contiguous."""
    windows, samples = cell_windows(
        case.boxes, case.scales, case.feature_level, case.grid_sizes, case.sampling_ratio
    )
    images = case.image.view(-1, 1).expand_as(case.feature_level)
    bins = torch.cat([torch.stack([images, case.feature_level], -1), samples], -1)
    features = [feature.permute(0, 2, 3, 1) for feature in case.features]
    return features, windows, bins, case.index, case.level


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Of the whole tensors, in the L2 norm; zero if both are empty or zero."""
    scale = expected.double().norm().item()
    difference = (got.double() - expected.double()).norm().item()
    return difference / scale if scale > 0 else difference
