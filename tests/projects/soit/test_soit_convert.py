"""Official names of the SOIT release."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from soit_model import small_model

from queryseg.checkpoint.registry import find_layout
from queryseg.engine import load_config
from queryseg.projects.soit.convert import LAYOUTS

GOLDEN = Path(__file__).parents[2] / "golden" / "soit"
(LAYOUT,) = LAYOUTS


@pytest.mark.parametrize(
    ("tag", "count", "trainable"), [("r50", 679, 41_846_569), ("r101", 985, None)]
)
def test_every_official_key_maps_to_a_parameter_of_the_same_shape(
    tag: str, count: int, trainable: int | None
) -> None:
    manifest = json.loads((GOLDEN / f"manifest_{tag}.json").read_text())
    assert len(manifest) == count
    with torch.device("meta"):
        model = instantiate(load_config(f"soit/soit_{tag}_50ep.py").model)
    ours = model.state_dict()
    assert find_layout(manifest) is LAYOUT
    mapped = {}
    for name, shape in manifest.items():
        if LAYOUT.is_ignored(name):
            assert "num_batches_tracked" in name or "seg_branches" in name
            continue
        our_name = LAYOUT.to_ours(name)
        assert our_name is not None, name
        assert list(ours[our_name].shape) == shape, name
        assert LAYOUT.to_official(our_name) == name
        mapped[our_name] = name
    assert mapped.keys() == ours.keys()
    if trainable is not None:
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable


def test_last_of_the_six_names_of_the_mask_head_counts() -> None:
    names = [f"bbox_head.seg_branches.{index}.4.bias" for index in range(6)]
    converted = LAYOUT.convert({name: index for index, name in enumerate(names)})
    assert converted == {"mask_branch.heads.0.layers.2.bias": 5}


def test_converting_to_official_names_and_back_changes_nothing() -> None:
    ours = small_model("model.backbone.stem.norm=FrozenBN").state_dict()
    ours = {name: value for name, value in ours.items() if "num_batches" not in name}
    official = LAYOUT.convert_back(ours)
    assert len(official) == len(ours)
    back = LAYOUT.convert(official)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)
