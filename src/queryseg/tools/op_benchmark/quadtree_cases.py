"""Cases of the quadtree: features at the incoherent nodes of the RoIs of one image."""

import torch
from torch import Tensor
from torchvision.ops import roi_align

from queryseg.ops import gather_nodes
from queryseg.ops.quadtree import QuadtreeNodes, select_nodes
from queryseg.tools.op_benchmark.case import Case, Contender, Cost

GRIDS = (28, 56, 112)
NODES = (110, 439, 1757)  # of each box on each grid, 14 % of the cells: 2306
SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
CHANNELS = 256
HEIGHT, WIDTH = 800, 1088


def make_boxes(count: int) -> Tensor:
    """Boxes with sides from 30 to 700 pixels, evenly by their logarithm, inside the image."""
    generator = torch.Generator().manual_seed(0)
    sides = 30 * (700 / 30) ** torch.rand(count, 2, generator=generator)
    corners = torch.rand(count, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - sides)
    return torch.cat([corners, corners + sides], 1)


def pyramid_levels(boxes: Tensor) -> Tensor:
    """The maps that the grids of each box are pooled from: finer than its own, as released."""
    sides = boxes[:, 2:] - boxes[:, :2]
    own = (4 + (sides.prod(1).sqrt() / 224).log2()).floor().clamp(2, 5).long() - 2
    return torch.stack([(own - up).clamp(min=0) for up in (1, 2, 3)], 1)


def make_nodes(count: int) -> QuadtreeNodes:
    """Nodes along the outlines of discs, as many on each grid as `NODES` says."""
    masks = []
    for grid, nodes in zip(GRIDS, NODES):
        at = (torch.arange(grid) + 0.5) / grid - 0.5
        distance = (at.view(-1, 1).square() + at.square()).sqrt() - 0.35
        mask = torch.zeros(grid * grid, dtype=torch.bool)
        mask[distance.abs().flatten().argsort(stable=True)[:nodes]] = True
        masks.append(mask.view(1, 1, grid, grid).expand(count, -1, -1, -1))
    return select_nodes(masks)


def dense_path(
    features: list[Tensor], boxes: Tensor, feature_level: Tensor, nodes: QuadtreeNodes
) -> Tensor:
    """What the released code does: whole RoIAlign maps, then their nodes."""
    pooled = []
    for number, grid in enumerate(GRIDS):
        maps = features[0].new_empty(len(boxes), CHANNELS, grid, grid)
        for level, (feature, scale) in enumerate(zip(features, SCALES)):
            chosen = (feature_level[:, number] == level).nonzero().squeeze(1)
            rois = torch.cat([boxes.new_zeros(len(chosen), 1), boxes[chosen]], 1)
            maps[chosen] = roi_align(feature, rois, grid, scale, 0, True)
        at = nodes.index[nodes.level == number]
        pooled.append(maps.permute(0, 2, 3, 1)[at.unbind(1)])
    output = features[0].new_empty(len(nodes.level), CHANNELS)
    for number, one in enumerate(pooled):
        output[nodes.level == number] = one
    return output


def contenders(count: int, device: torch.device) -> list[Contender]:
    generator = torch.Generator().manual_seed(1)
    features = []
    for scale in SCALES:
        size = (int(HEIGHT * scale), int(WIDTH * scale))
        features.append(torch.randn(1, CHANNELS, *size, generator=generator).to(device))
    boxes = make_boxes(count).to(device)
    levels = pyramid_levels(boxes)
    nodes = make_nodes(count)
    nodes = QuadtreeNodes(
        nodes.index.to(device), nodes.level.to(device), nodes.counts.to(device), nodes.grid_sizes
    )
    image = torch.zeros(count, dtype=torch.long, device=device)

    def gather(maps: list[Tensor]) -> Tensor:
        return gather_nodes(maps, SCALES, boxes, image, levels, GRIDS, nodes.index, nodes.level)

    channels_last = [one.contiguous(memory_format=torch.channels_last) for one in features]
    half = [one.bfloat16() for one in channels_last]
    return [
        Contender("queryseg", lambda: gather(features), features),
        Contender("dense RoIAlign", lambda: dense_path(features, boxes, levels, nodes), features),
        Contender("queryseg, channels last", lambda: gather(channels_last), channels_last),
        Contender("queryseg, channels last, bfloat16", lambda: gather(half), half),
    ]


def costs(count: int) -> dict[str, Cost]:
    """In float32, with a cell's mean as a product of sums over its rows and columns."""
    boxes = make_boxes(count)
    scale = torch.tensor(SCALES)[pyramid_levels(boxes)].unsqueeze(-1)
    sides = (boxes[:, 2:] - boxes[:, :2]).unsqueeze(1) * scale
    samples = (sides / torch.tensor(GRIDS).view(-1, 1)).ceil()
    nodes = torch.tensor(NODES)
    pixels = int(((samples + 1).prod(-1) * nodes).sum())
    maps = sum(int(HEIGHT * one) * int(WIDTH * one) for one in SCALES)
    output = 4 * count * sum(NODES) * CHANNELS
    forward = Cost(2 * pixels * CHANNELS, 4 * maps * CHANNELS + output, 4 * pixels * CHANNELS)
    return {"forward": forward, "forward_backward": forward + forward}


def case(name: str, count: int, passes: tuple[str, ...]) -> Case:
    return Case(
        "quadtree",
        name,
        lambda device: contenders(count, device),
        passes,
        costs=lambda: costs(count),
    )


CASES = [
    case("gather_100rois", 100, ("forward",)),  # the dense backward needs gigabytes and minutes
    case("gather_10rois", 10, ("forward", "forward_backward")),
]
