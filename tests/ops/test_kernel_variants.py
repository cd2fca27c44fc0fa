"""Every instruction set and pure torch give the same results as the best kernels here."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dynamic_conv_cases
import instance_deform_attn_cases
import ms_deform_attn_cases
import ms_deform_attn_fused_cases
import pytest
import quadtree_gather_cases
import torch
from ms_deform_attn_cases import relative_error

from queryseg.ops import build_info, has_kernels, ms_deform_attn

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
ACCURACY = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3}
# Pure torch goes through normalised coordinates: in float32 a point may fall into the next cell.
ACCURACY_ACROSS_CELLS = 5e-3

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import queryseg
import torch
from queryseg.ops import build_info
from test_kernel_variants import RESULTS
torch.save([build_info(), {op: list(run()) for op, run in RESULTS.items()}], sys.argv[2])
"""


def with_grads(output: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    weight = torch.arange(output.numel(), dtype=torch.float64).add(0.5).sin().view_as(output)
    return [output.detach(), *torch.autograd.grad(output, inputs, weight.to(output.dtype))]


def plain_results() -> Iterator[torch.Tensor]:
    """Channels that fill registers, leave a rest, and are fewer; queries by the thousand too."""
    for dtype in DTYPES:
        for seed, channels in enumerate((4, 32, 30, 71)):
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            case = ms_deform_attn_cases.make_case(
                seed, channels=channels, heads=1 + seed, queries=(20, 300)[seed % 2]
            ).to(dtype, wide)
            inputs = [tensor.requires_grad_() for tensor in case.tensors()]
            output = ms_deform_attn(inputs[0], case.shapes, *inputs[1:])
            yield from with_grads(output, inputs)


def fused_results() -> Iterator[torch.Tensor]:
    for dtype in DTYPES:
        for seed, channels in enumerate((4, 32, 30, 71)):
            case = ms_deform_attn_fused_cases.make_case(
                seed, channels=channels, queries=20, points=2 + seed, reference_dim=2 + seed % 2 * 2
            ).to(dtype)
            if dtype != torch.float64:
                case.reference = case.reference.float()
            inputs = [tensor.requires_grad_() for tensor in case.tensors()]
            yield from with_grads(case.with_tensors(inputs).output(), inputs)


def instance_results() -> Iterator[torch.Tensor]:
    """SOIT's sizes, with kernels of their own, and others; rows that fill registers or not."""
    for dtype in DTYPES:
        for seed, (channels, heads, points) in enumerate(((8, 4, 4), (6, 3, 3), (5, 1, 2))):
            case = instance_deform_attn_cases.make_case(
                seed, height=5, width=19 + 13 * seed, channels=channels, heads=heads, points=points
            )
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            case = case.to(wide, dtype).trainable()
            yield from with_grads(case.call(), [case.mask_feats, case.dynamic_weights])


def dynamic_conv_results() -> Iterator[torch.Tensor]:
    """Cases that fill registers and tiles, leave a rest, or have less than one."""
    for seed, (channels, inner) in enumerate(((1, 3), (7, 16), (16, 32), (71, 8), (128, 48))):
        for dtype in DTYPES:
            for side in ((7, 7), (1, 5)):
                case = dynamic_conv_cases.make_case(
                    seed, channels=channels, inner=inner, side=side, as_map=seed % 2 == 0
                )
                case.eps = 0.1
                norm_dtype = dtype if dtype == torch.float64 else torch.float32
                yield from case.to(dtype, norm_dtype).output_and_grads()


def quadtree_results() -> Iterator[torch.Tensor]:
    """Cases that fill registers, leave a rest, and have less channels than a register."""
    for seed, channels in enumerate((1, 7, 16, 71, 128, 261)):
        for dtype in (torch.float64, torch.float32):
            yield from quadtree_gather_cases.make_case(
                seed, channels=channels, nodes=20, dtype=dtype
            ).output_and_grads()


RESULTS: dict[str, Callable[[], Iterator[torch.Tensor]]] = {
    "ms_deform_attn": plain_results,
    "ms_deform_attn_fused": fused_results,
    "instance_deform_attn": instance_results,
    "dynamic_conv": dynamic_conv_results,
    "quadtree_gather": quadtree_results,
}


def test_every_operator_is_compared():
    names = torch._C._dispatch_get_all_op_names()
    ours = {name.removeprefix("queryseg::") for name in names if name.startswith("queryseg::")}
    assert {name for name in ours if f"{name}_backward" in ours} == set(RESULTS)


@pytest.mark.host
@pytest.mark.parametrize("variable", ["portable", "avx2", "pure torch"])
def test_every_variant_gives_the_same_results(tmp_path, variable):
    if not has_kernels("cpu"):
        pytest.skip("the kernels are not built")
    pure = variable == "pure torch"
    chosen = {"QUERYSEG_NO_EXT": "1"} if pure else {"QUERYSEG_CPU_CAPABILITY": variable}
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path / "results.pt")],
        env={**os.environ, "OMP_NUM_THREADS": "1", **chosen},
        check=True,
    )
    info, others = torch.load(tmp_path / "results.pt")
    if pure:
        assert info == {"problem": "QUERYSEG_NO_EXT is set"}
    elif build_info()["cpu_capability"] != "portable":
        assert info["cpu_capability"] == variable
    for op, run in RESULTS.items():
        for number, (one, other) in enumerate(zip(run(), others[op], strict=True)):
            assert one.dtype == other.dtype
            limit = ACCURACY[one.dtype]
            if pure and op.startswith("ms_deform_attn") and one.dtype != torch.float64:
                limit = ACCURACY_ACROSS_CELLS
            assert relative_error(other, one) < limit, (op, number)
