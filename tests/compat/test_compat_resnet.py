"""ResNet and FPN: names, initial weights and outputs."""

from types import MappingProxyType

import numpy as np
import pytest
import torch
import torchvision
from detectron2.layers import CNNBlockBase, FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.backbone import FPN, Backbone, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import (
    BasicStem,
    BottleneckBlock,
    DeformBottleneckBlock,
    make_stage,
)
from small_rcnn import fingerprint, names_and_shapes
from torch import nn

STAGES = ["res2", "res3", "res4", "res5"]


def resnet(depth=50, norm="BN", **kwargs):
    stages = ResNet.make_default_stages(depth, norm=norm, **kwargs)
    return ResNet(BasicStem(norm=norm), stages, out_features=STAGES)


NETWORKS = {
    "r18": lambda: resnet(18),
    "r50_frozen": lambda: resnet(50, "FrozenBN", stride_in_1x1=True),
    "r50_gn": lambda: resnet(50, "GN"),
    "r50_deform": lambda: resnet(
        50, block_class=DeformBottleneckBlock, deform_modulated=True, deform_num_groups=2
    ),
    "r101_fpn": lambda: FPN(resnet(101), STAGES, 64, norm="GN", top_block=LastLevelMaxPool()),
    "r50_fpn_p7": lambda: FPN(
        resnet(50), STAGES[1:], 32, top_block=LastLevelP6P7(2048, 32), fuse_type="avg"
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_equals_that_of_the_real_package(stored, name):
    with torch.device("meta"):
        lines = names_and_shapes(NETWORKS[name]())
    answers = stored(f"resnet_names_{name}", {"lines": lines})
    assert lines == answers["lines"].tolist()


@pytest.mark.parametrize("name", ["r18", "r50_frozen", "r50_deform", "r50_fpn_p7"])
def test_seeded_initial_weights_equal_those_of_the_real_package(stored, name):
    values = fingerprint(NETWORKS[name]().state_dict())
    answers = stored(f"resnet_weights_{name}", {"values": values})
    np.testing.assert_allclose(values, answers["values"], rtol=1e-5, atol=1e-7)


def torchvision_name(name: str) -> str:
    """The name torchvision gives to one of our parameters."""
    name = name.removeprefix("stem.")
    if name.startswith("res"):
        stage, rest = name.split(".", 1)
        name = f"layer{int(stage[3]) - 1}.{rest}"
    name = name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
    for i in "123":
        name = name.replace(f"conv{i}.norm", f"bn{i}")
    return name


@pytest.mark.parametrize("depth", [18, 50])
def test_outputs_equal_those_of_torchvision_with_the_same_weights(depth):
    ours = ResNet(BasicStem(), ResNet.make_default_stages(depth), num_classes=10).eval()
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10).eval()
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    weights = theirs.state_dict()
    mapping = {key: torchvision_name(key).replace("linear.", "fc.") for key in ours.state_dict()}
    assert sorted(mapping.values()) == sorted(weights)
    ours.load_state_dict({key: weights[value] for key, value in mapping.items()})
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)["linear"], theirs(x), rtol=1e-4, atol=1e-5)


def test_outputs_and_gradients_equal_those_of_the_real_package(stored):
    x = torch.randn(1, 3, 24, 32)
    deformable = make_stage(
        DeformBottleneckBlock, 2, in_channels=64, out_channels=32, bottleneck_channels=8
    )
    for block in deformable:
        nn.init.normal_(block.conv2_offset.weight, std=0.2)
    model = ResNet(BasicStem(), [deformable], out_features=["stem", "res2"]).eval()
    with torch.no_grad():
        arrays = {name: value[:, ::8] for name, value in model(x).items()}
    model = ResNet(BasicStem(norm="FrozenBN"), [make_stage(BottleneckBlock, 2, **SMALL_STAGE)])
    output = model(x)["res2"]
    output.square().mean().backward()
    arrays["dilated"] = output.detach()[:, ::8]
    arrays["gradient"] = fingerprint({k: p.grad for k, p in model.named_parameters()})
    answers = stored("resnet_outputs", arrays)
    for key, value in arrays.items():
        np.testing.assert_allclose(value, answers[key], rtol=1e-4, atol=1e-5, err_msg=key)


SMALL_STAGE = {
    "in_channels": 64,
    "out_channels": 32,
    "bottleneck_channels": 8,
    "norm": "FrozenBN",
    "num_groups": 2,
    "stride_per_block": [2, 1],
    "dilation_per_block": [1, 2],
    "stride_in_1x1": True,
}


def test_modulated_block_starts_as_an_ordinary_convolution_halved(detectron2_kind):
    if detectron2_kind == "real":
        pytest.skip("the real package has no modulated deformable convolution on a CPU")
    block = DeformBottleneckBlock(16, 16, bottleneck_channels=8, deform_modulated=True, norm="")
    plain = BottleneckBlock(16, 16, bottleneck_channels=8, norm="")
    weights = block.state_dict()
    plain.load_state_dict({key: weights[key] for key in plain.state_dict()})
    plain.conv2.weight.data /= 2  # an offset layer of zeros gives sigmoid(0) as weight
    x = torch.randn(1, 16, 8, 8)
    torch.testing.assert_close(block(x), plain(x), rtol=1e-4, atol=1e-5)


def test_unused_stages_are_dropped_and_strides_and_channels_are_told():
    stages = ResNet.make_default_stages(18)
    model = ResNet(BasicStem(), stages, out_features=["stem", "res3"])
    assert [name for name, _ in model.named_children()] == ["stem", "res2", "res3"]
    shapes = {"stem": ShapeSpec(channels=64, stride=4), "res3": ShapeSpec(channels=128, stride=8)}
    assert model.output_shape() == shapes
    assert (model.size_divisibility, model.padding_constraints) == (0, {})
    features = model(torch.zeros(2, 3, 32, 64))
    assert {k: tuple(v.shape) for k, v in features.items()} == {
        "stem": (2, 64, 8, 16),
        "res3": (2, 128, 4, 8),
    }
    with pytest.raises(AssertionError):
        ResNet(BasicStem(), stages[:2], out_features=["res5"])
    with pytest.raises(AssertionError):
        model(torch.zeros(3, 32, 32))


@pytest.mark.parametrize(
    ("freeze_at", "frozen"), [(0, []), (1, ["stem"]), (3, ["stem", "res2", "res3"])]
)
def test_freezing_stops_the_first_layers(freeze_at, frozen):
    model = ResNet(BasicStem(), ResNet.make_default_stages(18), freeze_at=freeze_at)
    for name, child in model.named_children():
        trains = any(p.requires_grad for p in child.parameters())
        constant = any(isinstance(m, FrozenBatchNorm2d) for m in child.modules())
        assert (trains, constant) == (name not in frozen, name in frozen), name


def test_values_per_block_go_to_their_block():
    blocks = make_stage(BottleneckBlock, 2, **SMALL_STAGE)
    assert [b.conv1.stride for b in blocks] == [(2, 2), (1, 1)]
    assert [b.conv2.dilation for b in blocks] == [(1, 1), (2, 2)]
    assert [(b.in_channels, b.stride) for b in blocks] == [(64, 2), (32, 1)]
    with pytest.raises(AssertionError):
        make_stage(BottleneckBlock, 3, **SMALL_STAGE)
    with pytest.raises(AssertionError):
        make_stage(BottleneckBlock, 2, **SMALL_STAGE, stride=1)


class Constant(Backbone):
    """Feature maps of one channel, of strides 4, 8 and 16, that hold the stride."""

    _out_features = ("a", "b", "c")
    _out_feature_channels = dict.fromkeys(_out_features, 1)
    _out_feature_strides = MappingProxyType(dict(zip(_out_features, (4, 8, 16))))

    def forward(self, x):
        height, width = x.shape[-2:]
        return {
            name: torch.full((len(x), 1, height // s, width // s), float(s))
            for name, s in self._out_feature_strides.items()
        }


@pytest.mark.parametrize(("fuse_type", "expected"), [("sum", [28, 24, 16]), ("avg", [8, 12, 16])])
def test_pyramid_adds_upsampled_coarse_features(fuse_type, expected):
    model = FPN(Constant(), ["a", "b", "c"], 1, fuse_type=fuse_type, square_pad=64)
    assert list(model.state_dict())[:2] == ["fpn_lateral2.weight", "fpn_lateral2.bias"]
    for conv in (*model.lateral_convs, *model.output_convs):
        nn.init.dirac_(conv.weight)
        assert conv.bias is not None
    outputs = model(torch.zeros(2, 3, 32, 64))
    assert list(outputs) == ["p2", "p3", "p4"]
    for (name, value), level, size in zip(outputs.items(), expected, (8, 4, 2)):
        assert value.shape == (2, 1, size, 2 * size)
        assert (value == level).all(), name
    assert model.size_divisibility == 16 and model.padding_constraints == {"square_size": 64}
    assert model.output_shape()["p3"] == ShapeSpec(channels=1, stride=8)


def test_top_blocks_make_coarser_levels():
    pooled = LastLevelMaxPool()(torch.arange(16.0).view(1, 1, 4, 4))
    assert [p.tolist() for p in pooled] == [[[[[0.0, 2.0], [8.0, 10.0]]]]]
    model = FPN(Constant(), ["b", "c"], 4, top_block=LastLevelP6P7(1, 4, in_feature="c"))
    outputs = model(torch.zeros(1, 3, 64, 64))
    assert {k: v.shape[-1] for k, v in outputs.items()} == {"p3": 8, "p4": 4, "p5": 2, "p6": 1}
    assert not any(isinstance(m, CNNBlockBase) for m in model.modules())


def test_strides_must_double_and_a_backbone_must_define_forward():
    with pytest.raises(AssertionError):
        FPN(Constant(), ["a", "c"], 4)
    with pytest.raises(TypeError):
        Backbone()
