"""ResNet-D with deformable convolutions against plain layers and published names."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from queryseg.backbones import ResNetD
from queryseg.backbones.resnet_d import BottleneckD, ShortcutD
from queryseg.checkpoint import Checkpointer

MANIFEST = Path(__file__).parents[1] / "golden" / "fastinst" / "manifest_R50-vd-dcn_D1.json"


def test_stages_have_the_usual_widths_and_strides() -> None:
    backbone = ResNetD(out_features=["res2", "res3", "res4", "res5"]).eval()
    outputs = backbone(torch.randn(1, 3, 64, 96))
    for name, shape in backbone.output_shape().items():
        stride = shape.stride
        assert outputs[name].shape == (1, shape.channels, 64 // stride, 96 // stride)
    assert [s.stride for s in backbone.output_shape().values()] == [4, 8, 16, 32]


def test_shortcut_averages_before_it_projects() -> None:
    shortcut = ShortcutD(4, 8, 2, "BN").eval()
    x = torch.randn(2, 4, 5, 6)
    pooled = torch.zeros(2, 4, 3, 3)
    for row in range(3):
        for column in range(3):
            cells = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            pooled[:, :, row, column] = cells.mean((2, 3))
    torch.testing.assert_close(shortcut(x), shortcut[2](shortcut[1](pooled)))


@pytest.mark.parametrize("stride", [1, 2])
def test_without_offsets_a_deformable_block_is_a_plain_one(stride: int) -> None:
    options = {"in_channels": 16, "width": 8, "stride": stride, "norm": "BN"}
    deformable = BottleneckD(deform=True, **options).eval()
    plain = BottleneckD(deform=False, **options).eval()
    nn.init.normal_(deformable.bn3.weight)
    plain.load_state_dict(deformable.state_dict(), strict=False)
    x = torch.randn(2, 16, 9, 11)
    torch.testing.assert_close(deformable(x), plain(x), atol=1e-5, rtol=1e-5)


def test_offsets_move_taps_down_by_their_first_and_right_by_their_second_channel() -> None:
    block = BottleneckD(in_channels=32, width=8, stride=1, norm="BN", deform=True).eval()
    y = torch.randn(1, 8, 9, 11)
    assert block.conv2_offset is not None
    with torch.no_grad():
        block.conv2_offset.bias.copy_(torch.tensor([1.0, -2.0]).repeat(9))
    moved = F.pad(y, (4, 4, 4, 4))
    shifted = F.conv2d(moved, block.conv2.weight)[:, :, 4:13, 1:12]
    torch.testing.assert_close(block._spatial(y), shifted, atol=1e-5, rtol=1e-5)


def test_trained_norms_start_deformable_blocks_as_their_shortcut() -> None:
    block = BottleneckD(in_channels=32, width=8, stride=1, norm="BN", deform=True).eval()
    x = torch.randn(1, 32, 9, 11).relu()
    assert torch.equal(block(x), x)
    frozen = BottleneckD(in_channels=32, width=8, stride=1, norm="FrozenBN", deform=True)
    assert not torch.equal(frozen(x), x)


def test_deformation_runs_in_float32_under_autocast() -> None:
    block = BottleneckD(in_channels=32, width=8, stride=1, norm="FrozenBN", deform=True).eval()
    y = torch.randn(1, 8, 9, 11)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert block._spatial(y.bfloat16()).dtype == torch.float32


def test_names_and_shapes_are_those_of_the_release() -> None:
    state = json.loads(MANIFEST.read_text())["state"]
    official = {name.removeprefix("backbone."): shape for name, shape in state.items()}
    ours = {name: list(value.shape) for name, value in ResNetD().state_dict().items()}
    assert ours == {name: shape for name, shape in official.items() if name in ours}
    assert sum(name.startswith("backbone.") for name in state) == len(ours)


def test_a_plain_published_backbone_loads_and_leaves_offsets_at_zero(tmp_path: Path) -> None:
    model = nn.ModuleDict({"backbone": ResNetD(norm="BN"), "head": nn.Conv2d(1, 1, 1)})
    published = {
        name: torch.randn_like(value) if value.is_floating_point() else value
        for name, value in model["backbone"].state_dict().items()
        if "conv2_offset" not in name
    }
    published["fc.weight"], published["fc.bias"] = torch.randn(1000, 2048), torch.randn(1000)
    torch.save(published, tmp_path / "resnet50d.pth")
    Checkpointer(model, str(tmp_path)).load(str(tmp_path / "resnet50d.pth"))
    loaded = model["backbone"].state_dict()
    assert all(torch.equal(loaded[name], published[name]) for name in loaded if name in published)
    assert not any(v.any() for name, v in loaded.items() if "conv2_offset" in name)


def test_unknown_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="depth is 18; expected one of"):
        ResNetD(depth=18)
