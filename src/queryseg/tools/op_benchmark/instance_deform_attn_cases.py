"""Cases of per-instance deformable attention: SOIT's sizes on the stride-8 map of 800 x 1333."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from queryseg.ops.instance_deform_attn import instance_deform_attn, num_dynamic_weights
from queryseg.tools.op_benchmark.case import Case, Contender, Cost

HEIGHT, WIDTH = 100, 167
CHANNELS, HEADS, POINTS = 8, 4, 4


def batched_path(
    mask_feats: Tensor, dynamic_weights: Tensor, row_codes: Tensor, column_codes: Tensor
) -> Tensor:
    """All instances of one image at once with `grid_sample`: the mask map repeated for each."""
    _, height, width, channels = mask_feats.shape
    count, rows = dynamic_weights.shape[0], HEADS * POINTS
    sizes = [2 * rows * channels, 2 * rows, rows * channels, rows, channels, 1]
    w_offset, b_offset, w_attn, b_attn, w_out, b_out = dynamic_weights.split(sizes, dim=1)
    codes = (
        row_codes[:, :-1].unsqueeze(2).expand(-1, -1, width, -1),
        column_codes[:, :-1].unsqueeze(1).expand(-1, height, -1, -1),
    )
    queries = (mask_feats + torch.cat(codes, dim=3)).flatten(1, 2)
    offsets = torch.baddbmm(
        b_offset.unsqueeze(1), queries, w_offset.view(count, 2 * rows, channels).transpose(1, 2)
    )
    attn = torch.baddbmm(
        b_attn.unsqueeze(1), queries, w_attn.view(count, rows, channels).transpose(1, 2)
    )
    attn = attn.view(count, -1, HEADS, POINTS).softmax(-1)
    size = mask_feats.new_tensor([width, height])
    row, column = torch.meshgrid(
        torch.arange(height, dtype=queries.dtype, device=queries.device),
        torch.arange(width, dtype=queries.dtype, device=queries.device),
        indexing="ij",
    )
    pixel = (torch.stack([column, row], dim=-1).view(-1, 1, 1, 2) + 0.5) / size
    locations = pixel + offsets.view(count, -1, HEADS, POINTS, 2) / size
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    maps = mask_feats.view(height, width, HEADS, -1).permute(2, 3, 0, 1)
    maps = maps.repeat(count, 1, 1, 1)
    sampled = F.grid_sample(maps, grid, align_corners=False)
    attn = attn.transpose(1, 2).reshape(count * HEADS, 1, -1, POINTS)
    hidden = (sampled * attn).sum(-1).view(count, channels, -1).relu()
    logits = torch.baddbmm(b_out.unsqueeze(1), w_out.unsqueeze(1), hidden)
    return logits.view(count, height, width)


def build(instances: int, device: torch.device) -> list[Contender]:
    """The operator and the batched path, on samples a few pixels around each pixel."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    half = CHANNELS // 2
    inputs = [
        normal(1, HEIGHT, WIDTH, CHANNELS),
        normal(instances, num_dynamic_weights(CHANNELS, HEADS, POINTS)),
    ]
    codes = [
        normal(instances, HEIGHT + 1, half).clamp(-1, 1),
        normal(instances, WIDTH + 1, half).clamp(-1, 1),
    ]
    ours = partial(instance_deform_attn, *inputs, *codes, heads=HEADS, points=POINTS)
    return [
        Contender("queryseg", ours, inputs),
        Contender("torch, batched", partial(batched_path, *inputs, *codes), inputs),
    ]


def costs(instances: int) -> dict[str, Cost]:
    """In float32: the linear layers, the softmax (10 operations an exponential) and the samples."""
    pixels, samples = instances * HEIGHT * WIDTH, HEADS * POINTS
    linear = 2 * CHANNELS * (3 * samples + 1)
    per_pixel = linear + 10 * samples + 8 * samples * CHANNELS // HEADS
    feats = 4 * HEIGHT * WIDTH * CHANNELS
    weights = 4 * instances * num_dynamic_weights(CHANNELS, HEADS, POINTS)
    corners = 16 * pixels * samples * CHANNELS // HEADS
    forward = Cost(pixels * per_pixel, feats + weights + 4 * pixels, corners)
    backward = Cost(3 * pixels * per_pixel, 2 * (feats + weights) + 4 * pixels, 2 * corners)
    return {"forward": forward, "forward_backward": forward + backward}


CASES = [
    Case(
        "instance_deform_attn",
        f"n{instances}_{HEIGHT}x{WIDTH}",
        partial(build, instances),
        passes=passes,
        costs=partial(costs, instances),
    )
    for instances, passes in ((100, ("forward",)), (20, ("forward", "forward_backward")))
]
