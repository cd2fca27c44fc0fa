"""Deterministic weights and inputs of golden data."""

import zlib

import numpy as np
import torch
from torch import nn

from queryseg.checkpoint import Layout
from queryseg.parity import block_image, fill_by_official_names, filled, noise_image


def _random(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)


def test_values_follow_from_the_name_and_its_ending() -> None:
    recipe = {
        ("a.running_var", (4,)): 0.5 + _random("a.running_var").rand(4),
        ("a.running_mean", (4,)): 0.1 * _random("a.running_mean").randn(4),
        ("a.norm.weight", (4,)): 1 + 0.1 * _random("a.norm.weight").randn(4),
        ("a.bias", (4,)): 0.1 * _random("a.bias").randn(4),
        ("a.weight", (6, 2, 3)): _random("a.weight").randn(6, 2, 3) / np.sqrt(6),
        ("grid", (1, 4, 2)): _random("grid").randn(1, 4, 2) / np.sqrt(8),
    }
    for (name, shape), expected in recipe.items():
        values = filled(name, shape)
        assert values.dtype == torch.float32
        np.testing.assert_array_equal(values.numpy(), expected.astype(np.float32))


def _model() -> nn.Module:
    return nn.ModuleDict({"conv": nn.Conv2d(2, 4, 1), "norm": nn.BatchNorm2d(4)})


def test_model_is_filled_under_official_names() -> None:
    layout = Layout("example", signature=(), rules=(("old.", "conv."), ("bn.", "norm.")))
    model = _model()
    model["norm"].num_batches_tracked.fill_(7)
    keys = fill_by_official_names(model, layout)
    assert torch.equal(model["conv"].weight, filled("old.weight", (4, 2, 1, 1)))
    assert torch.equal(model["norm"].running_var, filled("bn.running_var", (4,)))
    assert model["norm"].num_batches_tracked == 7
    assert len(keys.matched) == 7
    assert keys.missing == keys.unexpected == ()


def test_names_without_a_counterpart_are_reported() -> None:
    layout = Layout("example", signature=(), rules=(("old.", "conv."),))
    keys = fill_by_official_names(_model(), layout, lambda state: state.update(extra=torch.ones(1)))
    assert set(keys.missing) == {f"norm.{n}" for n in _model()["norm"].state_dict()}
    assert keys.unexpected == ("extra",)


def test_bundle_may_set_weights_apart() -> None:
    layout = Layout("example", signature=(), rules=(("old.", "conv."), ("bn.", "norm.")))

    def halve(state: dict[str, torch.Tensor]) -> None:
        state["old.weight"] = state["old.weight"] / 2

    model = _model()
    fill_by_official_names(model, layout, halve)
    assert torch.equal(model["conv"].weight, filled("old.weight", (4, 2, 1, 1)) / 2)


def test_images_are_those_of_the_recipe() -> None:
    noise = np.random.RandomState(3).randint(0, 256, (5, 7, 3)).astype("uint8")
    assert torch.equal(noise_image(5, 7, 3), torch.from_numpy(noise.transpose(2, 0, 1).copy()))
    blocks = np.random.RandomState(3).randint(0, 256, (2, 3, 3))
    image = block_image(5, 7, seed=3, block=3)
    assert image.shape == (3, 5, 7) and image.dtype == torch.uint8
    for row in range(5):
        for column in range(7):
            assert image[:, row, column].tolist() == blocks[row // 3, column // 3].tolist()
