"""Backbone files of torchvision, timm, Detectron2 and Caffe2 in Detectron2's ResNet and FPN."""

import functools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, MaskRCNNConvUpsampleHead
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from queryseg.checkpoint import Checkpointer, CheckpointError
from queryseg.checkpoint.name_matching import match_by_ending
from queryseg.checkpoint.resnet_layout import TORCHVISION_RESNET
from queryseg.checkpoint.zoo import SHARED_RELEASES, known_releases, resolve_zoo_name
from queryseg.engine import load_config
from queryseg.engine.config import installed_configs


class Detector(nn.Module):
    """A model whose backbone can come from a file of its own."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(300, 300)


def detectron2_resnet(depth: int) -> ResNet:
    stages = ResNet.make_default_stages(depth, norm="FrozenBN")
    return ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res2", "res3", "res4", "res5"])


@functools.cache
def torchvision_resnet(depth: int) -> nn.Module:
    """Seeded weights, with statistics that differ from channel to channel."""
    torch.manual_seed(depth)
    model = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.0)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model


@torch.no_grad()
def torchvision_features(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    features = {}
    x = model.maxpool(model.relu(model.bn1(model.conv1(image))))
    for stage in (1, 2, 3, 4):
        x = getattr(model, f"layer{stage}")(x)
        features[f"res{stage + 1}"] = x
    return features


def assert_features_equal(
    backbone: nn.Module, reference: nn.Module, tolerance: float = 1e-6
) -> None:
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    expected = torchvision_features(reference, image)
    with torch.no_grad():
        features = backbone.eval()(image)
    for name, value in expected.items():
        error = (features[name] - value).norm() / value.norm()
        assert error < tolerance, f"{name}: relative error {error:.2e}"


@pytest.mark.parametrize("depth", [18, 50])
def test_a_torchvision_resnet_gives_torchvision_features(tmp_path: Path, depth: int):
    reference = torchvision_resnet(depth)
    torch.save(reference.state_dict(), tmp_path / "resnet.pth")
    model = Detector(detectron2_resnet(depth))
    checkpointer = Checkpointer(model)
    checkpointer.load(tmp_path / "resnet.pth")
    report = checkpointer.last_report
    assert report.source == "torchvision/timm ResNet"
    assert report.covers == "backbone."
    assert report.share == 1.0
    assert not report.is_complete, "the head is as it was"
    assert report.ignored == ("fc.weight", "fc.bias")
    assert report.unexpected == ()
    assert_features_equal(model.backbone, reference)


def test_a_converted_model_zoo_pickle_gives_torchvision_features_below_an_fpn(tmp_path: Path):
    reference = torchvision_resnet(18)
    arrays = {n: v.numpy() for n, v in TORCHVISION_RESNET.convert(reference.state_dict()).items()}
    arrays["stem.fc.weight"] = np.zeros((1000, 512), np.float32)
    zoo = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "R-18.pkl").write_bytes(pickle.dumps(zoo, protocol=2))
    bottom_up = detectron2_resnet(18)
    model = Detector(FPN(bottom_up, ["res2", "res3", "res4", "res5"], out_channels=8))
    checkpointer = Checkpointer(model)
    checkpointer.load(tmp_path / "R-18.pkl")
    report = checkpointer.last_report
    assert report.source == "model-zoo file by torchvision"
    assert report.covers == "backbone.bottom_up."
    assert report.share == 1.0
    assert report.unexpected == ("stem.fc.weight",)
    assert_features_equal(bottom_up, reference)


def test_a_file_of_the_same_names_is_matched_without_being_flagged(tmp_path: Path):
    reference = torchvision_resnet(18)
    torch.save(TORCHVISION_RESNET.convert(reference.state_dict()), tmp_path / "plain.pth")
    model = Detector(detectron2_resnet(18))
    Checkpointer(model).load(tmp_path / "plain.pth")
    assert_features_equal(model.backbone, reference)


def caffe2_blobs(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Detectron 1 names and values of a ResNet: statistics folded into scale and bias."""
    blobs = {}
    for name in [n for n in state if n.endswith("conv1.weight") and ".norm" not in n] + [
        n for n in state if n.endswith(("conv2.weight", "conv3.weight", "shortcut.weight"))
    ]:
        module = name.removesuffix(".weight")
        norm = {k: state[f"{module}.norm.{k}"] for k in ("weight", "bias")}
        mean, var = state[f"{module}.norm.running_mean"], state[f"{module}.norm.running_var"]
        scale = norm["weight"] / torch.sqrt(var + 1e-5)
        blob = module.replace("stem.", "").replace("shortcut", "branch1").replace(".", "_")
        for i, letter in ((1, "a"), (2, "b"), (3, "c")):
            blob = blob.replace(f"_conv{i}", f"_branch2{letter}")
        blobs[f"{blob}_w"] = state[name].numpy()
        prefix = "res_conv1" if blob == "conv1" else blob
        blobs[f"{prefix}_bn_s"] = scale.numpy()
        blobs[f"{prefix}_bn_b"] = (norm["bias"] - mean * scale).numpy()
    return blobs


@pytest.mark.parametrize(("wrapped", "depth"), [(False, 18), (True, 50)])
def test_a_caffe2_pickle_gives_torchvision_features(tmp_path: Path, wrapped: bool, depth: int):
    reference = torchvision_resnet(depth)
    blobs = caffe2_blobs(TORCHVISION_RESNET.convert(reference.state_dict()))
    assert len(blobs) == 3 * {18: 20, 50: 53}[depth]
    assert {"conv1_w", "res_conv1_bn_s", "res3_0_branch1_w", "res5_1_branch2b_bn_b"} <= set(blobs)
    blobs["conv1_w_momentum"] = np.zeros(1, np.float32)
    blobs["pred_w"] = np.zeros((1000, 2048), np.float32)
    stored = {"blobs": blobs, "cfg": "MODEL: {}"} if wrapped else blobs
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(stored, protocol=2))
    model = Detector(detectron2_resnet(depth))
    checkpointer = Checkpointer(model)
    checkpointer.load(tmp_path / "R-50.pkl")
    assert checkpointer.last_report.source == "Caffe2 (Detectron 1) file"
    assert checkpointer.last_report.covers == "backbone."
    assert checkpointer.last_report.share == 1.0
    # Folded statistics meet FrozenBN's own eps: measured 4.4e-5.
    assert_features_equal(model.backbone, reference, tolerance=1e-4)


def rcnn_heads(num_classes: int) -> nn.Module:
    box_predictor = FastRCNNOutputLayers(
        ShapeSpec(channels=16),
        box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
        num_classes=num_classes,
    )
    mask_head = MaskRCNNConvUpsampleHead(
        ShapeSpec(channels=8, height=14, width=14), num_classes=num_classes, conv_dims=[8, 8, 8]
    )
    return nn.ModuleDict({"box_predictor": box_predictor, "mask_head": mask_head})


def test_all_class_heads_of_a_mask_rcnn_from_the_model_zoo_start_anew(tmp_path: Path):
    arrays = {name: value.numpy() for name, value in rcnn_heads(80).state_dict().items()}
    zoo = {"model": arrays, "__author__": "Detectron2 Model Zoo"}
    (tmp_path / "model_final_f10217.pkl").write_bytes(pickle.dumps(zoo))
    checkpointer = Checkpointer(rcnn_heads(3))
    checkpointer.load(tmp_path / "model_final_f10217.pkl")
    head = checkpointer.last_report.class_head
    assert (head.classes_in_file, head.classes_in_model) == (80, 3)
    layers = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor")
    assert set(head.names) == {f"{layer}.{w}" for layer in layers for w in ("weight", "bias")}
    assert checkpointer.last_report.reshaped == ()
    assert checkpointer.last_report.share == 1.0


def test_a_backbone_file_of_another_depth_is_refused(tmp_path: Path):
    torch.save(torchvision_resnet(18).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match=r"does not fit the backbone of Detector: .* entries"):
        Checkpointer(Detector(detectron2_resnet(50))).load(tmp_path / "resnet18.pth")


def test_a_part_that_is_not_the_backbone_does_not_pass_for_the_model(tmp_path: Path):
    torch.save({"weight": torch.zeros(300, 300), "bias": torch.zeros(300)}, tmp_path / "head.pth")
    model = nn.ModuleDict({"head": nn.Linear(300, 300), "neck": nn.Conv2d(300, 300, 3)})
    with pytest.raises(CheckpointError, match="does not fit ModuleDict"):
        Checkpointer(model).load(tmp_path / "head.pth")


def test_the_layout_of_resnets_is_two_way():
    names = list(torchvision_resnet(50).state_dict())
    for name in names:
        if not name.startswith("fc."):
            assert TORCHVISION_RESNET.to_official(TORCHVISION_RESNET.to_ours(name)) == name
    ours = {TORCHVISION_RESNET.to_ours(n) for n in names} - {None}
    counters = {n for n in ours if n.endswith("num_batches_tracked")}
    assert ours - counters == set(detectron2_resnet(50).state_dict())


def test_the_longest_ending_of_whole_parts_wins():
    matched = match_by_ending(
        ["backbone.res2.0.conv1.weight", "backbone.stem.conv1.weight", "head.xconv1.weight"],
        ["conv1.weight", "res2.0.conv1.weight"],
    )
    assert matched == {
        "res2.0.conv1.weight": "backbone.res2.0.conv1.weight",
        "conv1.weight": "backbone.stem.conv1.weight",
    }
    with pytest.raises(CheckpointError, match=r"fits both 'a\.w' and 'b\.w'"):
        match_by_ending(["a.w", "b.w"], ["w"])


@pytest.mark.parametrize("option", ["", "?matching_heuristics=True"])
def test_an_ambiguous_file_is_an_error_where_matching_was_asked_for(tmp_path: Path, option: str):
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "one.pth")
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    message = "fits both 'a.weight' and 'b.weight'" if option else "does not fit ModuleDict: 0 of 4"
    with pytest.raises(CheckpointError, match=message):
        Checkpointer(model).load(f"{tmp_path / 'one.pth'}{option}")


def test_zoo_names_stand_for_addresses():
    assert set(SHARED_RELEASES) <= set(known_releases())
    for name, address in known_releases().items():
        assert resolve_zoo_name(f"zoo://{name}") == address
        assert address.startswith("https://")
    assert resolve_zoo_name("a/b.pth") == "a/b.pth"
    with pytest.raises(CheckpointError, match=r"known are, for example: .*resnet50-msra"):
        resolve_zoo_name("zoo://resnet50-msr")


# The backbones that Detectron2's model zoo lists. It has no ResNet-101 of torchvision.
DETECTRON2_BACKBONES = {"MSRA/R-50", "MSRA/R-101", "FAIR/X-101-32x8d", "torchvision/R-50"}


@pytest.mark.parametrize("name", list(installed_configs()))
def test_a_config_starts_from_a_backbone_that_is_published(name: str):
    path = load_config(name).train.init_checkpoint
    if path.startswith("detectron2://ImageNetPretrained/"):
        file = path.removeprefix("detectron2://ImageNetPretrained/")
        assert file.removesuffix(".pkl") in DETECTRON2_BACKBONES
    elif path.startswith("zoo://"):
        assert path.removeprefix("zoo://") in known_releases()


def test_a_file_that_cannot_be_fetched_says_what_to_do(monkeypatch):
    checkpointer = Checkpointer(nn.Linear(1, 1))

    def no_network(address: str) -> str:
        raise OSError(f"no route to {address}")

    monkeypatch.setattr(PathManager, "get_local_path", no_network)
    with pytest.raises(CheckpointError, match=r"MSRA/R-50\.pkl could not be fetched .* download"):
        checkpointer.load("zoo://resnet50-msra")
