"""ResNet stages that deform: what they are made of, and half precision."""

import pytest
import torch
from detectron2.layers import DeformConv, ModulatedDeformConv
from torch import nn

from queryseg.backbones.deformable_stages import make_deformable_stages


@pytest.mark.parametrize("modulated", [False, True])
def test_the_named_stages_deform_in_every_block(modulated: bool) -> None:
    stages = make_deformable_stages(
        depth=50, deform_stages=["res3", "res5"], deform_modulated=modulated
    )
    assert [len(stage) for stage in stages] == [3, 4, 6, 3]
    kind = ModulatedDeformConv if modulated else DeformConv
    for name, stage in zip(("res2", "res3", "res4", "res5"), stages):
        deform = [isinstance(block.conv2, kind) for block in stage]
        assert deform == [name in ("res3", "res5")] * len(stage)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("modulated", [False, True])
def test_autocast_moves_a_deformable_stage_little(
    dtype: torch.dtype, modulated: bool, detectron2_kind: str
) -> None:
    if modulated and detectron2_kind == "real":
        pytest.skip("Detectron2 has no modulated deformable convolution on the CPU")
    torch.manual_seed(0)
    stages = make_deformable_stages(
        depth=50, deform_stages=["res2"], deform_modulated=modulated, norm="BN"
    )
    block = stages[0][0]
    nn.init.normal_(block.conv2_offset.weight, std=0.02)
    x = torch.randn(2, 64, 16, 20)
    expected = block(x)
    with torch.autocast("cpu", dtype=dtype):
        found = block(x)
    # Rounding to eight bits in the convolutions around it: 0.6 % was measured.
    error = (found.float() - expected).norm() / expected.norm()
    assert error < 0.02
    if detectron2_kind == "real":
        return  # nor a backward pass of the plain one
    found.float().square().sum().backward()
    assert block.conv2_offset.weight.grad.abs().max() > 0
    assert all(p.grad.isfinite().all() for p in block.parameters())
