"""H-Deformable-DETR and DINO against the golden data of their official releases."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from queryseg.checkpoint.registry import find_layout, known_layouts
from queryseg.detectors.convert import DETECTOR_LAYOUTS, inside
from queryseg.engine import load_config
from queryseg.parity import find_bundle, known_bundles
from queryseg.tools.parity import compare

GOLDEN = Path(__file__).parents[1] / "golden" / "mask_frozen_detr"
MANIFESTS = (
    "hdetr_r50",
    "hdetr_swin_l_n900",
    "dino_r50_4scale",
    "dino_swin_l_4scale",
    "dino_focalnet_l_5scale",
)


def _meta_model(name: str) -> nn.Module:
    with torch.device("meta"):
        return instantiate(load_config(f"detectors/{name}.py").model)


def _official(name: str) -> dict[str, tuple[int, ...]]:
    with np.load(GOLDEN / "official_names.npz") as stored:
        names, shapes = stored[f"{name}/names"], stored[f"{name}/shapes"]
    return {str(n): tuple(int(x) for x in s.split(",") if x) for n, s in zip(names, shapes)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "bundle"),
    [
        ("hdetr_r50", "hdetr_r50_single_bestgap"),
        ("dino_r50_4scale", "dino_r50_single"),
    ],
)
def test_every_stage_of_detection_equals_the_release(config: str, bundle: str) -> None:
    # Measured in float32: logits 2e-5, boxes 3e-6.
    report = compare(f"detectors/{config}.py", GOLDEN / f"{bundle}.npz", dtype=torch.float32)
    assert report.failures() == []
    assert report.passed
    assert report.not_compared == []
    assert report.keys is not None
    assert not report.keys.missing
    assert not report.keys.unexpected
    if config == "hdetr_r50":
        assert report.comparisons["topk_idx"].role == "output"


def test_all_bundles_of_the_detectors_are_known_by_name() -> None:
    model = _meta_model("hdetr_r50")
    names = [
        *(f"hdetr_r50_{n}" for n in ("single", "single_bestgap", "batch2_padded", "480x800")),
        *(f"dino_r50_{n}" for n in ("single", "batch2_padded")),
    ]
    for name in names:
        assert find_bundle(Path(f"{name}.npz"), model).pattern == name
    assert len({bundle.pattern for bundle in known_bundles()} & set(names)) == len(names)


@pytest.mark.parametrize("name", MANIFESTS)
def test_all_official_names_have_a_place_of_the_same_shape(name: str) -> None:
    state = _meta_model(name).state_dict()
    official = _official(name)
    layout = find_layout(official)
    assert layout is not None
    assert layout in DETECTOR_LAYOUTS
    used = {}
    for official_name, shape in official.items():
        if layout.is_ignored(official_name):
            continue
        ours = layout.to_ours(official_name)
        assert ours in state, official_name
        assert tuple(state[ours].shape) == shape, official_name
        used[ours] = official_name
    assert set(state) == set(used)
    assert all(layout.to_official(ours) == official_name for ours, official_name in used.items())


DETREX = (
    ("hdetr_r50", ("query_embedding.weight", "transformer.pos_trans.weight"), 3),
    ("dino_r50_4scale", ("transformer.tgt_embed.weight", "label_enc.weight"), 3),
    ("dino_r50_5scale", ("transformer.tgt_embed.weight", "label_enc.weight"), 4),
)


@pytest.mark.parametrize(("name", "own", "num_features"), DETREX)
def test_names_of_detrex_have_a_place(name: str, own: tuple[str, ...], num_features: int) -> None:
    cfg = load_config(f"detectors/{name}.py")
    cfg.model.class_numbering = "contiguous"
    if name.startswith("dino"):
        cfg.model.share_heads = cfg.model.extra_label = False
    with torch.device("meta"):
        state = instantiate(cfg.model).state_dict()
    names = [
        "backbone.stem.conv1.weight",
        *(f"neck.convs.{i}.conv.weight" for i in range(num_features)),
        "neck.extra_convs.0.norm.bias",
        "transformer.level_embeds",
        "transformer.encoder.layers.3.attentions.0.value_proj.weight",
        "transformer.encoder.layers.3.ffns.0.layers.0.0.weight",
        "transformer.encoder.layers.3.ffns.0.layers.1.bias",
        "transformer.encoder.layers.3.norms.1.bias",
        "transformer.decoder.layers.5.attentions.0.attn.in_proj_weight",
        "transformer.decoder.layers.5.attentions.1.sampling_offsets.weight",
        "transformer.decoder.layers.5.norms.2.weight",
        "transformer.enc_output_norm.weight",
        "class_embed.5.weight",
        "bbox_embed.6.layers.2.weight",
        *own,
    ]
    layout = find_layout(names)
    assert layout is not None
    assert "detrex" in layout.name
    ours = [layout.to_ours(official) for official in names]
    assert [n for n, o in zip(names, ours) if o not in state] == []
    assert (
        layout.to_ours("neck.extra_convs.0.conv.bias") == f"projection.levels.{num_features}.0.bias"
    )
    assert layout.to_ours("class_embed.6.bias") == "proposals.class_head.bias"


def test_layouts_exist_for_a_detector_inside_another_model() -> None:
    for layout in DETECTOR_LAYOUTS:
        moved = inside(layout, "detector.")
        assert moved in known_layouts()
        assert moved.covers == "detector."
        assert moved.to_ours("transformer.enc_output.weight") == "detector.proposals.linear.weight"
