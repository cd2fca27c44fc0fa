"""Cases of the dynamic convolution: the heads of Sparse R-CNN and QueryInst."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from queryseg.ops import dynamic_conv
from queryseg.tools.op_benchmark.case import Case, Contender, Cost

CHANNELS, INNER = 256, 64


def bmm_path(
    features: Tensor,
    dynamic_weights: Tensor,
    norm_in_weight: Tensor,
    norm_in_bias: Tensor,
    norm_out_weight: Tensor,
    norm_out_bias: Tensor,
) -> Tensor:
    """Both products with `torch.bmm`, as the released heads compute them."""
    x = features.flatten(2).permute(0, 2, 1)
    w_in = dynamic_weights[:, : CHANNELS * INNER].view(-1, CHANNELS, INNER)
    w_out = dynamic_weights[:, CHANNELS * INNER :].view(-1, INNER, CHANNELS)
    x = F.relu(F.layer_norm(torch.bmm(x, w_in), (INNER,), norm_in_weight, norm_in_bias))
    return F.relu(F.layer_norm(torch.bmm(x, w_out), (CHANNELS,), norm_out_weight, norm_out_bias))


def build(instances: int, side: int, device: torch.device) -> list[Contender]:
    """The operator and `torch.bmm` on maps as RoIAlign gives them."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    inputs = [
        normal(instances, CHANNELS, side, side),
        normal(instances, 2 * CHANNELS * INNER) / 16,
        *(1 + 0.1 * normal(INNER), 0.1 * normal(INNER)),
        *(1 + 0.1 * normal(CHANNELS), 0.1 * normal(CHANNELS)),
    ]
    rows = [inputs[0].flatten(2).mT.contiguous(), *inputs[1:]]
    half = [one.bfloat16() for one in inputs]
    return [
        Contender("queryseg", partial(dynamic_conv, *inputs), inputs),
        Contender("torch.bmm, layer_norm, relu", partial(bmm_path, *inputs), inputs),
        Contender("queryseg, (N, T, C)", partial(dynamic_conv, *rows), rows),
        Contender("queryseg, bfloat16", partial(dynamic_conv, *half), half),
        Contender("torch, bfloat16", partial(bmm_path, *half), half),
    ]


def costs(instances: int, side: int) -> dict[str, Cost]:
    """In float32: the two matrix products, which a backward pass takes twice."""
    rows = instances * side * side
    maps, weights = 4 * rows * CHANNELS, 8 * instances * CHANNELS * INNER
    flops = 4 * rows * CHANNELS * INNER
    forward = Cost(flops, 2 * maps + weights)
    backward = Cost(2 * flops, 3 * maps + 2 * weights)
    return {"forward": forward, "forward_backward": forward + backward}


def case(name: str, instances: int, side: int) -> Case:
    build_case, cost_case = partial(build, instances, side), partial(costs, instances, side)
    return Case("dynamic_conv", name, build_case, costs=cost_case)


CASES = [case("n300", 300, 7), case("n100", 100, 7), case("n100_14x14", 100, 14)]
