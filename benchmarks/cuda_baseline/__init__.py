"""What GPUs run today, as contenders of the operator benchmark."""

import functools
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from queryseg.tools.op_benchmark.case import Case, Contender
from queryseg.tools.op_benchmark.ms_deform_attn_cases import LEVELS

SOURCE = Path(__file__).with_name("ms_deform_attn.cu")
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DUSE_CUDA"]
IM2COL_STEP = 64  # of mmcv: images a launch


@functools.cache
def load_baseline() -> None:
    """Compile and load `queryseg_baseline::ms_deform_attn` and its backward for this GPU."""
    from torch.utils import cpp_extension  # looks for a CUDA toolkit, and says so, when imported

    cpp_extension.load(
        "queryseg_baseline",
        [str(SOURCE)],
        extra_cflags=STABLE_ABI,
        extra_cuda_cflags=["-O3", *STABLE_ABI],
        is_python_module=False,
    )


class OneThreadPerChannel(torch.autograd.Function):
    """The kernels of 2020."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return torch.ops.queryseg_baseline.ms_deform_attn(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        grads = torch.ops.queryseg_baseline.ms_deform_attn_backward(
            grad_output.contiguous(), *ctx.saved_tensors
        )
        return grads[0], None, None, grads[1], grads[2]


def contenders(case: Case, device: torch.device, ours: Contender) -> list[Contender]:
    """The baselines of a case on a GPU; none for other operators and devices."""
    if device.type != "cuda" or case.op != "ms_deform_attn" or len(ours.inputs) != 3:
        return []
    value, locations, weights = ours.inputs
    sizes = LEVELS[case.name.rpartition("_")[2]]
    shapes = torch.tensor(sizes, device=device)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    load_baseline()

    def run() -> Tensor:
        return OneThreadPerChannel.apply(value, shapes, starts, locations, weights)

    found = [Contender("one thread per channel", run, ours.inputs)]
    function = mmcv_function()
    if function is not None:
        found.append(
            Contender(
                "mmcv",
                lambda: function.apply(value, shapes, starts, locations, weights, IM2COL_STEP),
                ours.inputs,
            )
        )
    return found


def mmcv_function() -> Any:
    """mmcv's autograd function, or None where mmcv or its CUDA operators are missing."""
    try:
        module = importlib.import_module("mmcv.ops.multi_scale_deform_attn")
    except ImportError:
        return None
    return getattr(module, "MultiScaleDeformableAttnFunction", None)
