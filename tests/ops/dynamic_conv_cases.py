"""Inputs for the tests of dynamic_conv, and an implementation that shares no code with it."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from queryseg.ops import dynamic_conv


@dataclass
class Case:
    """Arguments of one call."""

    features: Tensor
    dynamic_weights: Tensor
    norm_in_weight: Tensor
    norm_in_bias: Tensor
    norm_out_weight: Tensor
    norm_out_bias: Tensor
    eps: float = 1e-5

    @property
    def tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)[:-1]]

    @property
    def sizes(self) -> tuple[int, int]:
        """d and C."""
        return len(self.norm_in_weight), len(self.norm_out_weight)

    def to(self, dtype: torch.dtype, norm_dtype: torch.dtype | None = None) -> "Case":
        """Features and dynamic weights in `dtype`, the layer norms in `norm_dtype`."""
        norms = [one.to(norm_dtype or dtype) for one in self.tensors[2:]]
        return Case(self.features.to(dtype), self.dynamic_weights.to(dtype), *norms, self.eps)

    def run(self) -> Tensor:
        return dynamic_conv(*self.tensors, eps=self.eps)

    def output_and_grads(self) -> list[Tensor]:
        """The result, and the gradients of a weighted sum of it by all tensors."""
        return with_grads(self, Case.run)


def with_grads(case: Case, run) -> list[Tensor]:
    """What `run` gives for the case, and the gradients of a weighted sum of it by all tensors."""
    leaves = [tensor.detach().requires_grad_() for tensor in case.tensors]
    output = run(Case(*leaves, case.eps))
    weight = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).cos().mul(3).sin()
    total = (output * weight.view_as(output).to(output.dtype)).sum()
    return [output.detach(), *torch.autograd.grad(total, leaves, materialize_grads=True)]


def make_case(
    seed: int,
    *,
    instances: int = 3,
    side: tuple[int, int] = (3, 3),
    channels: int = 8,
    inner: int = 4,
    as_map: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Case:
    """Values of order one in every tensor and in both products."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (channels, *side) if as_map else (side[0] * side[1], channels)
    w_in = normal(instances, channels * inner) / channels**0.5
    w_out = normal(instances, channels * inner) / inner**0.5
    return Case(
        normal(instances, *shape),
        torch.cat([w_in, w_out], 1),
        1 + 0.3 * normal(inner),
        0.3 * normal(inner),
        1 + 0.3 * normal(channels),
        0.3 * normal(channels),
    ).to(dtype, torch.float64 if dtype == torch.float64 else torch.float32)


def random_case(seed: int) -> Case:
    """Any sizes, both layouts, and memory that is not contiguous."""
    generator = torch.Generator().manual_seed(20_000 + seed)

    def pick(*options: int) -> int:
        return options[int(torch.randint(len(options), (), generator=generator))]

    case = make_case(
        seed,
        instances=pick(*range(10)),
        side=(pick(1, 1, 2, 3, 7), pick(1, 2, 4, 7)) if pick(*range(8)) else (0, 3),
        channels=pick(1, 2, 4, 15, 30, 32, 64, 71),
        inner=pick(1, 3, 4, 8, 17, 32, 40),
        as_map=bool(pick(0, 1)),
    )
    # The gradient through a norm of few values is a difference of equals, but for eps.
    case.eps = pick(1e-5, 0.1) if min(case.sizes) > 4 else 0.1
    layout = pick(0, 1, 2)
    if layout == 1 and case.features.dim() == 4:
        case.features = case.features.contiguous(memory_format=torch.channels_last)
    elif layout:
        case.features = torch.stack([case.features, case.features], -1)[..., 1]
        case.dynamic_weights = case.dynamic_weights.t().contiguous().t()
        case.norm_out_weight = torch.stack([case.norm_out_weight] * 2, 1)[:, 0]
    return case


BUGS = (
    "first norm missing",
    "second norm missing",
    "unbiased variance",
    "no bias",
    "no weight",
    "first ReLU missing",
    "second ReLU missing",
    "ReLU before the norm",
    "W_in transposed",
    "W_out transposed",
    "weights swapped",
    "columns first",
    "weights of the next instance",
    "eps missing",
    "first channel lost",
    "last position lost",
)


def definition(case: Case, bug: str = "") -> Tensor:
    """The definition with einsum and the library's layer norm; with one of `BUGS`."""
    x = case.features
    if x.dim() == 4:
        x = (x.mT if bug == "columns first" else x).flatten(2).mT
    if bug == "first channel lost":
        x = torch.cat([torch.zeros_like(x[..., :1]), x[..., 1:]], 2)
    inner, channels = case.sizes
    weights = case.dynamic_weights
    if bug == "weights of the next instance":
        weights = weights.roll(1, 0)
    first, second = weights.chunk(2, 1)
    if bug == "weights swapped":
        first, second = second, first
    w_in, w_out = first.unflatten(1, (channels, inner)), second.unflatten(1, (inner, channels))
    if bug == "W_in transposed":
        w_in = first.unflatten(1, (inner, channels)).mT
    if bug == "W_out transposed":
        w_out = second.unflatten(1, (channels, inner)).mT
    y = torch.einsum("ntc,ncd->ntd", x, w_in)
    if bug == "ReLU before the norm":
        y = y.relu()
    if bug != "first norm missing":
        y = norm(y, case.norm_in_weight, case.norm_in_bias, case.eps, bug)
    if bug != "first ReLU missing":
        y = y.relu()
    z = torch.einsum("ntd,ndc->ntc", y, w_out)
    if bug != "second norm missing":
        z = norm(z, case.norm_out_weight, case.norm_out_bias, case.eps, bug)
    if bug == "last position lost":
        z = torch.cat([z[:, :-1], torch.zeros_like(z[:, -1:])], 1)
    return z if bug == "second ReLU missing" else z.relu()


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, bug: str) -> Tensor:
    if bug == "unbiased variance":
        centred = x - x.mean(-1, keepdim=True)
        return centred / (x.var(-1, keepdim=True) + eps).sqrt() * weight + bias
    if bug == "no bias":
        bias = torch.zeros_like(bias)
    if bug == "no weight":
        weight = torch.ones_like(weight)
    return F.layer_norm(x, x.shape[-1:], weight, bias, 0.0 if bug == "eps missing" else eps)


def expected_output_and_grads(case: Case, bug: str = "") -> list[Tensor]:
    """As `Case.output_and_grads`, by the definition in float64."""
    return with_grads(case.to(torch.float64), lambda one: definition(one, bug))


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Of the whole tensors, in the L2 norm; the absolute one where zero is expected.

    The norm of a single value has no gradient, which the library computes to 1e-16 at worst.
    """
    scale = expected.double().norm().item()
    difference = (got.double() - expected.double()).norm().item()
    return difference / scale if scale > 1e-13 else difference


def operator_arguments(case: Case) -> tuple:
    """Arguments of the operator behind `dynamic_conv`."""
    return (*case.tensors, case.eps)


def scaled(case: Case, factor: float) -> Case:
    """With features so small that the first variance is of the size of eps."""
    return replace(case, features=case.features * factor)
