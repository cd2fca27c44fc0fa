"""Swin against timm and torchvision with the same weights, and against the names of releases."""

import json
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from queryseg.backbones import Swin
from queryseg.backbones.window_attention import (
    BLOCKED,
    WindowAttention,
    blocked_by_shift,
    join_windows,
    split_windows,
)
from queryseg.checkpoint import Checkpointer
from queryseg.checkpoint.swin_layout import MICROSOFT_SWIN, TIMM_SWIN, TORCHVISION_SWIN

MANIFESTS = Path(__file__).parents[1] / "golden" / "swin"
SMALL = {"embed_dim": 12, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 3, 6], "window_size": 3}
SWIN_LARGE = {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48]}


class Detector(nn.Module):
    """A model whose backbone can come from a file of its own; its norm is not the classifier's."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(300, 300)
        self.norm = nn.LayerNorm(96)


def spread(model: nn.Module) -> nn.Module:
    """Weights under which every part matters: position biases and norms, too."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif "bias_table" in name:
                parameter.normal_(0, 1)
            else:
                parameter.normal_(0, parameter.shape[1:].numel() ** -0.5)
    return model.eval()


def assert_same_maps(ours: dict[str, Tensor], expected: list[Tensor]) -> None:
    assert len(ours) == len(expected)
    for (name, value), reference in zip(ours.items(), expected, strict=True):
        assert value.shape == reference.shape
        error = (value - reference).norm() / reference.norm()
        assert error < 1e-5, f"{name}: relative error {error:.2e}"


def ours_from(converted: dict[str, Tensor]) -> Swin:
    backbone = Swin(drop_path_rate=0.3, norm_features=[]).eval()
    backbone.load_state_dict(converted)
    return backbone


def torchvision_maps(model: nn.Module, images: Tensor) -> list[Tensor]:
    x, maps = images, []
    for index, layer in enumerate(model.features):
        x = layer(x)
        if index % 2:
            maps.append(x.permute(0, 3, 1, 2))
    return maps


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 224), (232, 268)])
def test_maps_are_those_of_torchvision_on_maps_that_the_windows_do_not_fill(
    size: tuple[int, int],
) -> None:
    reference = spread(torchvision.models.swin_t())
    # torchvision looks inside windows without a shift where the map is no larger than a window, so
    # the last stage differs there.
    ours = ours_from(TORCHVISION_SWIN.convert(reference.state_dict()))
    images = torch.randn(2, 3, *size)
    maps = ours(images)
    expected = torchvision_maps(reference, images)
    larger = [name for name, value in maps.items() if min(value.shape[2:]) > 7]
    assert larger[:3] == ["res2", "res3", "res4"]
    assert_same_maps({n: maps[n] for n in larger}, expected[: len(larger)])


@torch.no_grad()
def test_maps_are_those_of_timm_where_windows_fill_every_map() -> None:
    # timm blocks other pairs than the release where windows are padded.
    reference = spread(
        timm.create_model("swin_tiny_patch4_window7_224", features_only=True, img_size=448)
    )
    named = {
        name.replace("layers_", "layers."): value for name, value in reference.state_dict().items()
    }
    ours = ours_from(TIMM_SWIN.convert(named))
    images = torch.randn(1, 3, 448, 448)
    expected = [value.permute(0, 3, 1, 2) for value in reference(images)]
    assert_same_maps(ours(images), expected)


@torch.no_grad()
def test_attention_is_softmax_of_scores_bias_and_blocks() -> None:
    attention = spread(WindowAttention(embed_dim=8, num_heads=2, window_size=2)).double()
    windows = torch.randn(3, 6, 4, 8, dtype=torch.float64)
    blocked = blocked_by_shift(4, 6, window_size=2, shift=1, device=windows.device).double()
    result = attention(windows, blocked)
    table = attention.relative_position_bias_table
    for image, window in ((0, 0), (2, 5), (1, 2)):
        x = windows[image, window]
        q, k, v = F.linear(x, attention.qkv.weight, attention.qkv.bias).split(8, dim=-1)
        heads = []
        for head in (0, 1):
            part = slice(4 * head, 4 * head + 4)
            scores = q[:, part] @ k[:, part].T / 2 + blocked[window]
            for i in range(4):
                for j in range(4):
                    down, right = i // 2 - j // 2 + 1, i % 2 - j % 2 + 1
                    scores[i, j] += table[3 * down + right, head]
            heads.append(scores.softmax(-1) @ v[:, part])
        expected = attention.proj(torch.cat(heads, -1))
        torch.testing.assert_close(result[image, window], expected)


def test_shifted_windows_keep_opposite_borders_apart() -> None:
    height, width, size, shift = 6, 9, 3, 1
    blocked = blocked_by_shift(height, width, window_size=size, shift=shift, device="cpu")
    place = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1
    )[None]
    rolled = split_windows(place.roll((-shift, -shift), (1, 2)), size)[0]
    assert blocked.shape == (6, 9, 9)
    for window, tokens in enumerate(rolled):
        for i, (row, column) in enumerate(tokens.tolist()):
            for j, (other_row, other_column) in enumerate(tokens.tolist()):
                together = abs(row - other_row) < size and abs(column - other_column) < size
                assert blocked[window, i, j] == (0.0 if together else BLOCKED)


def test_windows_are_joined_as_they_were_split() -> None:
    x = torch.randn(2, 6, 9, 4)
    windows = split_windows(x, 3)
    assert torch.equal(windows[1, 4], x[1, 3:6, 3:6].reshape(9, 4))
    assert torch.equal(join_windows(windows, 6, 9), x)


@pytest.mark.parametrize("size", [(64, 96), (61, 35), (1, 1), (5, 130)])
def test_any_image_size_gives_maps_of_the_stated_strides(size: tuple[int, int]) -> None:
    backbone = Swin(**SMALL, out_features=["res5", "res2"])
    outputs = backbone(torch.randn(2, 3, *size))
    shapes = backbone.output_shape()
    assert list(outputs) == list(shapes) == ["res2", "res5"]
    for name, shape in shapes.items():
        expected = [2, shape.channels, *(-(-side // shape.stride) for side in size)]
        assert list(outputs[name].shape) == expected
        assert outputs[name].isfinite().all()


@torch.no_grad()
def test_only_the_chosen_stages_are_normed() -> None:
    torch.manual_seed(0)
    backbone = Swin(**SMALL, norm_features=["res3", "res5"]).eval()
    assert {n.split(".")[0] for n in backbone.state_dict()} == {
        "patch_embed", "layers", "norm1", "norm3",
    }  # fmt: skip
    maps = backbone(torch.randn(1, 3, 48, 48))
    means = {name: value.mean(1).abs().max() for name, value in maps.items()}
    assert means["res3"] < 1e-6 and means["res5"] < 1e-6
    assert means["res2"] > 1e-4 and means["res4"] > 1e-4


@torch.no_grad()
def test_a_batch_gives_what_its_images_give() -> None:
    backbone = spread(Swin(**SMALL))
    images = torch.randn(3, 3, 50, 70)
    together, alone = backbone(images), backbone(images[1:2])
    for name in together:
        torch.testing.assert_close(together[name][1:2], alone[name], atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_the_same_gradient_with_and_without_checkpoints() -> None:
    images, gradients = torch.randn(1, 3, 40, 56), []
    weights = spread(Swin(**SMALL)).state_dict()
    for use_checkpoint in (False, True):
        backbone = Swin(**SMALL, use_checkpoint=use_checkpoint).train()
        backbone.load_state_dict(weights)
        torch.manual_seed(3)  # drop path draws from it
        maps = backbone(images)
        sum(value.pow(3).mean() for value in maps.values()).backward()
        gradients.append({n: p.grad for n, p in backbone.named_parameters()})
    for name, value in gradients[0].items():
        assert value is not None and value.isfinite().all(), name
        torch.testing.assert_close(gradients[1][name], value)


def test_drop_path_grows_linearly_over_all_blocks() -> None:
    backbone = Swin(embed_dim=12, depths=[1, 2], num_heads=[1, 2], drop_path_rate=0.5,
                    out_features=["res3"])  # fmt: skip
    rates = [block.drop_path.p for stage in backbone.layers for block in stage.blocks]
    assert rates == [0.0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("manifest", "options"),
    [
        ("swin_tiny_window7.json", {}),
        ("swin_large_window7.json", SWIN_LARGE),
        (
            "swin_large_window12_norms123.json",
            {**SWIN_LARGE, "window_size": 12, "norm_features": ["res3", "res4", "res5"]},
        ),
    ],
)
def test_names_and_shapes_are_those_of_released_detectors(
    manifest: str, options: dict[str, object]
) -> None:
    official = json.loads((MANIFESTS / manifest).read_text())
    with torch.device("meta"):
        ours = {name: list(v.shape) for name, v in Swin(**options).state_dict().items()}
    assert ours == {n: s for n, s in official.items() if "relative_position_index" not in n}


def published(kind: str) -> dict[str, Tensor]:
    """The state dict of a published classifier: Swin-T's shapes, random values."""
    if kind == "torchvision Swin":
        return spread(torchvision.models.swin_t()).state_dict()
    state = spread(timm.create_model("swin_tiny_patch4_window7_224")).state_dict()
    if kind == "timm Swin":
        return state
    state = {TIMM_SWIN.to_ours(n) or n.replace("head.fc", "head"): v for n, v in state.items()}
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    state["layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(49, 49).long()
    return state


@torch.no_grad()
@pytest.mark.parametrize("layout", [MICROSOFT_SWIN, TIMM_SWIN, TORCHVISION_SWIN])
def test_a_published_classifier_fills_the_backbone_of_a_detector(layout, tmp_path: Path) -> None:
    weights = published(layout.name)
    torch.save({"model": weights}, tmp_path / "swin.pth")
    model = Detector(Swin())
    before = model.norm.weight.clone()
    checkpointer = Checkpointer(model)
    checkpointer.load(tmp_path / "swin.pth")
    report = checkpointer.last_report
    assert report.source == layout.name
    assert report.covers == "backbone."
    assert report.unexpected == () and report.reshaped == ()
    assert {name.split(".")[1] for name in report.missing} == {"norm0", "norm1", "norm2", "norm3"}
    assert torch.equal(model.norm.weight, before), "the classifier's norm is not the detector's"
    for name, value in layout.convert(weights).items():
        assert torch.equal(model.backbone.state_dict()[name], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [2, 2]}, "must name the same stages"),
        ({"out_features": ["res1"]}, r"out_features has \['res1'\]"),
        ({"out_features": ["res5"], "norm_features": ["res2"]}, "does not return"),
    ],
)
def test_sizes_and_stages_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Swin(**options)
