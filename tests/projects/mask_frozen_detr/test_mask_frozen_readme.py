"""Every override that the method's README names works."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from queryseg.engine import apply_overrides, load_config
from queryseg.engine.config import installed_configs

README = Path(__file__).parents[3] / "projects" / "mask_frozen_detr" / "README.md"
ROWS = re.findall(r"^\| [\d, ]+ \| ([^|]+) \| `([^`]*)` \|", README.read_text(), re.M)


def test_readme_names_the_rows_of_the_tables_and_configs_that_exist() -> None:
    assert len(ROWS) == 33
    configs = re.findall(r"configs/(\w+/\w+\.py)", README.read_text())
    assert len(configs) > 5
    assert set(configs) <= set(installed_configs())


@pytest.mark.parametrize(("row", "overrides"), ROWS)
def test_ablation_builds(row: str, overrides: str) -> None:
    name = "dino_focalnet_l" if "likewise" in row or "focalnet" in row else "hdetr_r50"
    path = f"mask_frozen_detr/mask_frozen_detr_{name}.py"
    cfg = apply_overrides(load_config(path), overrides.split())
    assert cfg != load_config(path)
    if "model." in overrides:
        cfg.model.detector.encoder_layers = cfg.model.detector.decoder_layers = 1
        with torch.device("meta"):
            assert instantiate(cfg.model).num_classes == 80
