"""Official names of the FastInst release."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from fastinst_model import small_model

from queryseg.engine import load_config
from queryseg.projects.fastinst.convert import LAYOUTS

GOLDEN = Path(__file__).parents[2] / "golden" / "fastinst"
CONFIGS = {
    "R50_D1": "fastinst_r50_d1",
    "R50_D3": "fastinst_r50_d3",
    "R101_D3": "fastinst_r101_d3",
    "R50-vd-dcn_D1": "fastinst_r50d_dcn_d1",
    "R50-vd-dcn_D3": "fastinst_r50d_dcn_d3",
}
(LAYOUT,) = LAYOUTS


@pytest.mark.parametrize("tag", CONFIGS)
def test_every_official_key_maps_to_a_parameter_of_the_same_shape(tag: str) -> None:
    manifest = json.loads((GOLDEN / f"manifest_{tag}.json").read_text())
    model = instantiate(load_config(f"fastinst/{CONFIGS[tag]}.py").model)
    ours = model.state_dict()
    assert LAYOUT.recognises(manifest["state"])
    mapped = {}
    for name, shape in manifest["state"].items():
        if LAYOUT.is_ignored(name):
            assert name.endswith("criterion.empty_weight")
            continue
        our_name = LAYOUT.to_ours(name)
        assert our_name is not None
        assert list(ours[our_name].shape) == shape, name
        assert LAYOUT.to_official(our_name) == name
        mapped[our_name] = name
    assert mapped.keys() == ours.keys()
    trainable = [mapped[name] for name, p in model.named_parameters() if p.requires_grad]
    assert set(trainable) == set(manifest["parameters"])
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == manifest["n_trainable_params"]


def test_converting_to_official_names_and_back_changes_nothing() -> None:
    ours = small_model("model.decoder.num_layers=2").state_dict()
    official = LAYOUT.convert_back(ours)
    assert len(official) == len(ours)
    back = LAYOUT.convert(official)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_plain_fpn_keeps_the_official_name_of_its_coarsest_projection() -> None:
    model = small_model("model.pixel_decoder.kind=fpn")
    official = {LAYOUT.to_official(name) for name in model.state_dict()}
    assert "sem_seg_head.pixel_decoder.adapter_3.weight" in official
    assert None not in official
