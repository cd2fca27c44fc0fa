"""Counting multiply-adds of a forward pass, our own operators included."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision  # noqa: F401  (registers deform_conv2d)
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

import queryseg.ops  # noqa: F401  (registers our operators)

DATA_DEPENDENT = (DataDependentOutputException, DynamicOutputShapeException)
BILINEAR = 4
"""Multiply-adds that read one value between four pixels."""


def ms_deform_attn_flops(
    value: Sequence[int],
    spatial_shapes: Any,
    sampling_locations: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    """Each point reads D values bilinearly and adds them with one weight; two a multiply-add."""
    batch, queries, heads, levels, points, _xy = sampling_locations
    return 2 * batch * queries * heads * levels * points * value[3] * (BILINEAR + 1)


def ms_deform_attn_fused_flops(
    value: Sequence[int],
    spatial_shapes: Any,
    reference_points: Sequence[int],
    sampling_offsets: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    """As the plain operator: softmax and location arithmetic are not counted elsewhere either."""
    return ms_deform_attn_flops(value, spatial_shapes, sampling_offsets)


def dynamic_conv_flops(
    features: Sequence[int],
    dynamic_weights: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    """Each position takes part in both products with all weights of its instance."""
    positions = features[2] * features[3] if len(features) == 4 else features[1]
    return 2 * positions * dynamic_weights[0] * dynamic_weights[1]


def deform_conv2d_flops(
    x: Sequence[int],
    weight: Sequence[int],
    offset: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    """Each tap reads all input channels bilinearly, then a convolution; two a multiply-add."""
    out_channels, in_channels, height, width = weight
    places = offset[0] * offset[2] * offset[3]
    taps = height * width
    return 2 * places * taps * (BILINEAR * x[1] + out_channels * in_channels)


def attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Scores of all pairs and the weighted sums; torch's counter leaves out the CPU's kernel."""
    return sdpa_flop_count(query, key, value)


FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.queryseg.ms_deform_attn: ms_deform_attn_flops,
    torch.ops.queryseg.ms_deform_attn_fused: ms_deform_attn_fused_flops,
    torch.ops.queryseg.dynamic_conv: dynamic_conv_flops,
    torch.ops.torchvision.deform_conv2d: deform_conv2d_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
}


def count_flops(model: nn.Module, run: Callable[[], Any]) -> Counter[str]:
    """Count the multiply-adds of convolutions, matrix products, attention and our operators.

    One multiply-add counts as one, as papers of the field do. Norms, activations and resizing are
    not counted; they are below 1 % of such models. Nothing is computed, unless the model's shapes
    depend on values.

    Args:
        model: the module whose parts are told apart.
        run: calls it.

    Returns:
        Dotted module name (the model itself is "") -> multiply-adds.
    """
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    root = type(model).__name__
    with torch.no_grad():
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), counter:
                run()
        except DATA_DEPENDENT:
            with counter:
                run()
    counts: Counter[str] = Counter()
    for name, by_operator in counter.get_flop_counts().items():
        module = str(name)
        if module == root or module.startswith(f"{root}."):
            counts[module[len(root) + 1 :]] = sum(by_operator.values()) // 2
    return counts
