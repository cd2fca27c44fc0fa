"""FocalNet against timm's, with the same weights."""

import re

import pytest
import timm.models.focalnet as timm_focalnet
import torch
from torch import nn

from queryseg.backbones import FocalNet

SMALL = {"embed_dim": 16, "depths": (1, 2, 1, 1), "focal_levels": 3, "focal_window": 5}


def _timm_model() -> nn.Module:
    return timm_focalnet.FocalNet(
        embed_dim=16,
        depths=(1, 2, 1, 1),
        focal_levels=(3, 3, 3, 3),
        focal_windows=(5, 5, 5, 5),
        use_post_norm=True,
        use_overlap_down=True,
        layerscale_value=1e-4,
        num_classes=0,
    )


def _randomised(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2)
    return model.eval()


def _from_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm has the way down in the next stage, and 1x1 convolutions for linear layers."""
    ours = {}
    for name, value in state.items():
        name = name.replace("stem.", "patch_embed.").replace("ls1.gamma", "gamma_1")
        name = name.replace("ls2.gamma", "gamma_2").replace("_post.", ".")
        if found := re.fullmatch(r"layers\.(\d)\.(downsample\..*)", name):
            name = f"layers.{int(found[1]) - 1}.{found[2]}"
        linear = re.search(r"(modulation\.(f|proj)|mlp\.fc\d)\.weight", name)
        if not name.startswith("norm."):
            ours[name] = value.flatten(1) if linear and value.dim() == 4 else value
    return ours


@pytest.mark.parametrize("size", [(64, 96), (72, 100)])
def test_every_map_equals_that_of_timm(size: tuple[int, int]) -> None:
    reference = _randomised(_timm_model())
    model = FocalNet(**SMALL).eval()
    missing = model.load_state_dict(_from_timm(reference.state_dict()), strict=False)
    assert all(name.startswith("norm") for name in missing.missing_keys)
    assert not missing.unexpected_keys
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        maps = model(image)
        x = reference.stem(image)
        for index, stage in enumerate(reference.layers):
            if index and (x.shape[2] % 2 or x.shape[3] % 2):
                x = nn.functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
            x = stage(x)
            expected = nn.functional.layer_norm(x.movedim(1, -1), (x.shape[1],)).movedim(-1, 1)
            torch.testing.assert_close(maps[f"res{index + 2}"], expected, atol=2e-5, rtol=2e-5)


def test_sides_are_rounded_up_and_shapes_are_told() -> None:
    model = FocalNet(**SMALL, out_features=["res2", "res4"])
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 65, 33))
    assert {name: x.shape[1:] for name, x in maps.items()} == {
        "res2": (16, 17, 9),
        "res4": (64, 5, 3),
    }
    shapes = model.output_shape()
    assert (shapes["res4"].channels, shapes["res4"].stride) == (64, 16)
    assert not hasattr(model, "norm1")


def test_branches_are_left_out_in_training_only() -> None:
    model = _randomised(FocalNet(**SMALL, drop_path_rate=0.9))
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(image)["res5"], model(image)["res5"])
        model.train()
        torch.manual_seed(1)
        first = model(image)["res5"]
        torch.manual_seed(2)
        assert not torch.equal(first, model(image)["res5"])


def test_every_parameter_learns() -> None:
    model = FocalNet(**SMALL, layer_scale=1.0)
    maps = model(torch.randn(1, 3, 64, 64))
    sum(x.square().sum() for x in maps.values()).backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
