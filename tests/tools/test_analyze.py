"""Counting parameters and FLOPs."""

import json

import pytest
import torch
from detectron2.config import instantiate
from torch import nn
from torchvision.ops import DeformConv2d

from queryseg.deformable_detr import DeformableAttention
from queryseg.engine import apply_overrides, load_config
from queryseg.layers import MultiheadAttention
from queryseg.ops import dynamic_conv
from queryseg.tools.analyze import flops_at_tokens, main, model_parts
from queryseg.tools.flop_counter import count_flops

MEAN_TOKENS = 7925
"""Pixels of the map at stride 8, averaged over COCO val at 640 pixels."""


def test_convolutions_and_linear_layers_count_their_multiply_adds() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(2), nn.Linear(35, 4))
    counts = count_flops(model, lambda: model(torch.zeros(2, 3, 5, 7)))
    assert counts["0"] == 2 * 5 * 7 * 8 * 3 * 9
    assert counts["2"] == 2 * 8 * 35 * 4
    assert counts[""] == counts["0"] + counts["2"]


def test_deformable_attention_counts_four_reads_and_one_weight_a_value() -> None:
    model = DeformableAttention(embed_dim=16, num_heads=2, num_levels=2, num_points=3)
    query, value = torch.zeros(1, 5, 16), torch.zeros(1, 20, 16)
    reference = torch.zeros(1, 5, 2, 2)
    counts = count_flops(model, lambda: model(query, reference, value, [(4, 4), (2, 2)]))
    linear = 5 * 16 * (24 + 12) + 20 * 16 * 16 + 5 * 16 * 16
    assert counts[""] == linear + 5 * 2 * 2 * 3 * 8 * 5


def test_attention_counts_the_scores_of_all_pairs_and_the_weighted_sums() -> None:
    model = MultiheadAttention(embed_dim=16, num_heads=2)
    query, memory = torch.zeros(1, 5, 16), torch.zeros(1, 7, 16)
    counts = count_flops(model, lambda: model(query, memory, memory))
    assert counts[""] == 2 * 5 * 16 * 16 + 2 * 7 * 16 * 16 + 2 * 5 * 7 * 16


def test_deformable_convolution_counts_its_taps_and_reads() -> None:
    model = DeformConv2d(4, 6, 3, stride=2, padding=1)
    offset = torch.zeros(1, 18, 3, 4)
    counts = count_flops(model, lambda: model(torch.zeros(1, 4, 5, 7), offset))
    assert counts[""] == 3 * 4 * 9 * (4 * 6 + 4 * 4)


class DynamicConv(nn.Module):
    def forward(self, features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        one, two = torch.ones(4), torch.ones(8)
        return dynamic_conv(features, weights, one, one, two, two)


@pytest.mark.parametrize("shape", [(3, 8, 2, 5), (3, 10, 8)])
def test_dynamic_convolution_counts_both_products(shape: tuple[int, ...]) -> None:
    model = DynamicConv()
    counts = count_flops(model, lambda: model(torch.zeros(shape), torch.zeros(3, 64)))
    assert counts[""] == 3 * 10 * 2 * 8 * 4


@pytest.mark.parametrize(("num_layers", "paper"), [(1, 59.6e9), (3, 75.5e9)])
def test_fastinst_has_the_flops_of_the_paper(num_layers: int, paper: float) -> None:
    override = f"model.decoder.num_layers={num_layers}"
    cfg = apply_overrides(load_config("fastinst/fastinst_r50_d3.py"), [override])
    flops = flops_at_tokens(instantiate(cfg.model), MEAN_TOKENS)
    assert flops[""] == pytest.approx(paper, rel=0.01)
    parts = sum(flops[name] for name in ("backbone", "pixel_decoder", "decoder"))
    assert parts == pytest.approx(flops[""])


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        ("r50_d1", 29.658),
        ("r50_d3", 34.177),
        ("r101_d3", 53.117),
        ("r50d_dcn_d1", 30.175),
        ("r50d_dcn_d3", 34.694),
    ],
)
def test_fastinst_has_the_parameters_of_the_release(config: str, millions: float) -> None:
    with torch.device("meta"):
        model = instantiate(load_config(f"fastinst/fastinst_{config}.py").model)
    whole = model_parts(model, {}, depth=1)[0]
    assert whole.name == ""
    assert round(whole.parameters / 1e6, 3) == millions


def test_interpolation_between_sizes_is_exact_at_a_size(capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config-file", "fastinst/fastinst_tiny.py", "--json"]
    totals = []
    for where in (["--size", "640x64"], ["--stride8-tokens", "640"]):
        assert main([*config, *where]) == 0
        totals.append(json.loads(capsys.readouterr().out)["parts"][0]["flops"])
    assert totals[0] == totals[1]


def test_table_shows_the_parts_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config-file", "fastinst/fastinst_tiny.py", "--size", "64x64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert {"whole model", "backbone", "pixel_decoder", "decoder"} <= set(rows)
    assert "3.110" in rows["whole model"]
