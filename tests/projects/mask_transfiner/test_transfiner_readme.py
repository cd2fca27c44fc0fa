"""The overrides in the README are understood and build."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from queryseg.engine import apply_overrides, load_config
from queryseg.mask_refinement.mask_head import QuadtreeMaskHead
from queryseg.project_modules import project_modules

FOLDER = Path(__file__).parents[3] / "projects" / "mask_transfiner"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
ROWS = [row for row in re.findall(r"`(H\.[^`]*)`", TEXT) if "=" in row]


@pytest.mark.parametrize("row", ROWS)
def test_an_ablation_row_changes_the_config_and_builds(row: str) -> None:
    config = "mask_transfiner/mask_transfiner_r50_paper.py"
    overrides = row.replace("H.", "model.roi_heads.mask_head.").split()
    changed = apply_overrides(load_config(config), overrides)
    assert changed != load_config(config)
    head = changed.model.roi_heads.mask_head
    head.coarse_head.num_classes = 80
    with torch.device("meta"):
        assert isinstance(instantiate(head), QuadtreeMaskHead)


def test_the_readme_names_every_config_and_drawing() -> None:
    configs = (FOLDER.parents[1] / "configs" / "mask_transfiner").glob("*.py")
    assert all(f"`{config.stem}`" in TEXT for config in configs)
    assert len(ROWS) > 15
    assert any("quadtree" in module.DRAWINGS for module in project_modules("draw"))
