"""The FLOPs and parameters of the paper's tables."""

import json

import pytest
import torch

from queryseg.projects.mask_frozen_detr import analysis
from queryseg.projects.mask_frozen_detr.analysis import MeasuredRow, measured_rows
from queryseg.projects.mask_frozen_detr.build import build_mask_network
from queryseg.projects.mask_frozen_detr.paper_flops import paper_flops
from queryseg.tools.analyze import main

CLOSE = 0.002
ARGUMENTS = {"num_classes": 80, "embed_dim": 256, "num_levels": 4, "stage1_channels": 256}


@pytest.fixture(scope="module")
def rows() -> list[MeasuredRow]:
    return measured_rows()


def test_all_rows_have_the_parameters_of_the_paper_to_the_printed_digit(
    rows: list[MeasuredRow],
) -> None:
    assert len(rows) == 36
    assert [row.paper.name for row in rows if not row.same_parameters] == []


def test_all_rows_have_the_flops_of_the_paper(rows: list[MeasuredRow]) -> None:
    far = {row.paper.name: row.deviation for row in rows if abs(row.deviation) > CLOSE}
    assert far == {}


def test_roi_align_term_is_told_apart_and_scales_with_the_width(rows: list[MeasuredRow]) -> None:
    terms = {row.paper.name: row.flops.roi_align for row in rows}
    assert terms["d = 256"] == 31 * 256 * 56_000
    assert terms["d = 64"] == 31 * 64 * 56_000
    assert terms["RoI 16"] == terms["RoI 64"] == 31 * 128 * 56_000


def test_the_final_design_counts_what_its_layers_cost_by_hand() -> None:
    cells, tokens, d = 100 * 32 * 32, 18_784, 128
    map_cells = 56_000
    image = 2 * tokens * (256 * 256 + 256 * 128 + 2 * 256 * 256 + 2 * 256 * 1024)
    maps = map_cells * (256 * 256 + 256 * d) + 100 * 256 * d
    region = 2 * cells * (d * 64 + d * 32 + 2 * d * d + 2 * d * 4 * d)
    query = 2 * (100 * (2 * d * d + 8 * d * d) + cells * 2 * d * d + cells * 2 * d)
    convs = 100 * 9 * (256 * 129 * d + 64 * d * d + 16 * d * d)
    scoring = convs + 100 * (16 * d * d + d * d + d * 80)
    by_hand = image + maps + region + query + cells * d + scoring
    network = build_mask_network(**ARGUMENTS)
    assert paper_flops(network, stage1_channels=256, num_boxes=100).multiply_adds == by_hand


def test_training_free_baseline_has_no_parameters_and_the_flops_of_table_1() -> None:
    bare = {"image_layers": 0, "region_layers": 0, "hidden_dim": 256, "mask_scoring": False}
    for roi_align, neck, paper in [
        (False, "none", 1.49),
        (True, "none", 0.53),
        (False, "raw", 1.50),
        (True, "raw", 0.54),
    ]:
        network = build_mask_network(**ARGUMENTS, **bare, roi_align=roi_align, neck=neck)
        assert not list(network.parameters())
        flops = paper_flops(network, stage1_channels=256, num_boxes=100)
        assert flops.total / 1e9 == pytest.approx(paper, abs=0.006)


def test_command_prints_the_table_beside_the_papers_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "ROWS", analysis.ROWS[:1])
    assert main(["--mask-frozen-table"]) == 0
    printed = capsys.readouterr().out
    assert "| 2       | image deformable x1 | 14.71     | 14.71" in printed
    assert main(["--mask-frozen-table", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["parameters"] == 756_864
    assert row["same_parameters"] is True


def test_counting_leaves_the_network_as_it_was() -> None:
    network = build_mask_network(**ARGUMENTS, image_layers=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    paper_flops(network, stage1_channels=256, num_boxes=1)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
