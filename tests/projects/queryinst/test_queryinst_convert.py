"""Official names of the QueryInst release, and of Sparse R-CNN's."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from queryinst_model import small_model

from queryseg.checkpoint import Checkpointer
from queryseg.checkpoint.registry import find_layout
from queryseg.engine import apply_overrides, load_config
from queryseg.engine.param_groups import get_param_groups
from queryseg.projects.queryinst.convert import QUERYINST, SPARSE_RCNN

GOLDEN = Path(__file__).parents[2] / "golden" / "queryinst"
MODELS = {
    "r50_100q": ("queryinst_r50_100q_3x", 100, 172_694_952),
    "r50_300q": ("queryinst_r50_300q_3x", 300, 172_746_952),
    "r101_300q": ("queryinst_r101_300q_3x", 300, 191_739_080),
    "swin_t_100q": ("queryinst_swin_t_300q_3x", 100, 176_093_218),
    "swin_l_300q": ("queryinst_swin_l_300q_50ep", 300, 343_991_324),
    "x101_64x4d_dcn_300q_GUESS": ("queryinst_x101_dcn_300q_3x", 300, 238_359_794),
}


def _manifest(tag: str, num_queries: int) -> dict[str, list[int]]:
    """Shapes by official name; the model with 300 queries differs in them only."""
    manifest = json.loads(
        (GOLDEN / f"manifest_{tag.replace('r50_300q', 'r50_100q')}.json").read_text()
    )
    for name, shape in manifest.items():
        if name.startswith("rpn_head."):
            shape[0] = num_queries
    return manifest


@pytest.mark.parametrize("tag", MODELS)
def test_every_official_key_maps_to_an_entry_of_the_same_shape(tag: str) -> None:
    config, num_queries, count = MODELS[tag]
    override = f"model.decoder.num_queries={num_queries}"
    with torch.device("meta"):
        cfg = apply_overrides(load_config(f"queryinst/{config}.py"), [override])
        model = instantiate(cfg.model)
    ours, manifest = model.state_dict(), _manifest(tag, num_queries)
    assert QUERYINST.recognises(manifest)
    assert find_layout(manifest) is QUERYINST
    mapped = set()
    for name, shape in manifest.items():
        if QUERYINST.is_ignored(name):
            assert name.endswith("relative_position_index")
            continue
        our_name = QUERYINST.to_ours(name)
        assert our_name is not None
        assert list(ours[our_name].shape) == shape, name
        assert QUERYINST.to_official(our_name) == name
        mapped.add(our_name)
    assert mapped == ours.keys()
    assert sum(p.numel() for p in model.parameters()) == count


def test_converting_to_official_names_and_back_changes_nothing() -> None:
    ours = small_model("model.decoder.num_stages=2").state_dict()
    official = QUERYINST.convert_back(ours)
    assert len(official) == len(ours)
    back = QUERYINST.convert(official)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_weight_decay_of_swin_models_leaves_out_what_the_release_leaves_out() -> None:
    cfg = load_config("queryinst/queryinst_swin_t_300q_3x.py")
    with torch.device("meta"):
        model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    params = {key: value for key, value in cfg.optimizer.params.items() if key != "_target_"}
    groups = get_param_groups(**params)
    names = {id(parameter): QUERYINST.to_official(n) for n, parameter in model.named_parameters()}
    undecayed = {
        names[id(parameter)]
        for group in groups
        for parameter in group["params"]
        if group["weight_decay"] == 0
    }
    parts = ("norm", "relative_position_bias_table", "absolute_pos_embed")
    assert undecayed == {name for name in names.values() if any(part in name for part in parts)}
    assert len(undecayed) == 172


def test_sparse_rcnn_of_detectron2_loads_by_renaming(tmp_path: Path) -> None:
    torch.manual_seed(1)
    names = {
        "self_attn.in_proj_weight": (96, 32),
        "self_attn.in_proj_bias": (96,),
        "self_attn.out_proj.weight": (32, 32),
        "self_attn.out_proj.bias": (32,),
        "inst_interact.dynamic_layer.weight": (512, 32),
        "inst_interact.dynamic_layer.bias": (512,),
        "inst_interact.norm1.weight": (8,),
        "inst_interact.norm1.bias": (8,),
        "inst_interact.norm2.weight": (32,),
        "inst_interact.norm2.bias": (32,),
        "inst_interact.out_layer.weight": (32, 1568),
        "inst_interact.out_layer.bias": (32,),
        "inst_interact.norm3.weight": (32,),
        "inst_interact.norm3.bias": (32,),
        "linear1.weight": (32, 32),
        "linear1.bias": (32,),
        "linear2.weight": (32, 32),
        "linear2.bias": (32,),
        **{f"norm{i}.{kind}": (32,) for i in (1, 2, 3) for kind in ("weight", "bias")},
        "cls_module.0.weight": (32, 32),
        "cls_module.1.weight": (32,),
        "cls_module.1.bias": (32,),
        **{f"reg_module.{i}.weight": (32, 32) for i in (0, 3, 6)},
        **{f"reg_module.{i}.{kind}": (32,) for i in (1, 4, 7) for kind in ("weight", "bias")},
        "class_logits.weight": (6, 32),
        "class_logits.bias": (6,),
        "bboxes_delta.weight": (4, 32),
        "bboxes_delta.bias": (4,),
    }
    model = small_model()
    state = {
        f"head.head_series.{stage}.{name}": torch.randn(shape)
        for stage in range(3)
        for name, shape in names.items()
    }
    state["init_proposal_features.weight"] = torch.randn(9, 32)
    state["init_proposal_boxes.weight"] = torch.rand(9, 4)
    backbone = {f"backbone.{k}": v for k, v in model.backbone.state_dict().items()}
    path = tmp_path / "sparse_rcnn.pth"
    torch.save({"model": {**state, **backbone}}, path)
    masks = {k: v.clone() for k, v in model.mask_branch.state_dict().items()}
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.load(str(path))
    report = checkpointer.last_report
    assert report is not None
    assert report.source == SPARSE_RCNN.name
    assert report.share == 1.0
    assert not report.unexpected and not report.missing
    assert "judged on backbone and decoder" in str(report)
    ours = model.state_dict()
    stage = "decoder.stages.2."
    for official, name in {
        "inst_interact.norm1.weight": "box_head.dynamic_conv.norm_in.weight",
        "inst_interact.norm3.bias": "box_head.projection_norm.bias",
        "norm2.weight": "box_head.interaction_norm.weight",
        "reg_module.6.weight": "box_head.box_layers.6.weight",
    }.items():
        assert torch.equal(ours[stage + name], state[f"head.head_series.2.{official}"])
    assert torch.equal(
        ours["decoder.proposals.boxes_cxcywh_norm"], state["init_proposal_boxes.weight"]
    )
    assert all(torch.equal(masks[k], v) for k, v in model.mask_branch.state_dict().items())
    mapped = {SPARSE_RCNN.to_official(name) for name in ours if not name.startswith("mask_branch.")}
    assert mapped == {*state, *backbone}
