"""Names of `detectron2.modeling`: registries for add-ons, and what the subset leaves out."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    Backbone,
    build_anchor_generator,
    build_backbone,
    build_box_head,
    build_keypoint_head,
    build_mask_head,
    build_model,
    build_proposal_generator,
    build_roi_heads,
    build_rpn_head,
    build_sem_seg_head,
)
from torch import nn

# Registry, where a config names the entry, and what builds it.
PARTS = [
    (ANCHOR_GENERATOR_REGISTRY, "ANCHOR_GENERATOR.NAME", build_anchor_generator),
    (PROPOSAL_GENERATOR_REGISTRY, "PROPOSAL_GENERATOR.NAME", build_proposal_generator),
    (RPN_HEAD_REGISTRY, "RPN.HEAD_NAME", build_rpn_head),
    (ROI_HEADS_REGISTRY, "ROI_HEADS.NAME", build_roi_heads),
    (ROI_BOX_HEAD_REGISTRY, "ROI_BOX_HEAD.NAME", build_box_head),
    (ROI_MASK_HEAD_REGISTRY, "ROI_MASK_HEAD.NAME", build_mask_head),
    (ROI_KEYPOINT_HEAD_REGISTRY, "ROI_KEYPOINT_HEAD.NAME", build_keypoint_head),
    (SEM_SEG_HEADS_REGISTRY, "SEM_SEG_HEAD.NAME", build_sem_seg_head),
]


def config(key: str, name: str) -> SimpleNamespace:
    section, field = key.split(".")
    return SimpleNamespace(MODEL=SimpleNamespace(**{section: SimpleNamespace(**{field: name})}))


@pytest.mark.parametrize(("registry", "key", "build"), PARTS)
def test_an_add_on_can_register_a_part_and_build_it_by_name(registry, key, build):
    def make_part(cfg, input_shape):
        return cfg, input_shape

    registry.register(make_part)
    cfg = config(key, "make_part")
    assert build(cfg, "shape") == (cfg, "shape")


def test_precomputed_proposals_need_no_generator():
    assert (
        build_proposal_generator(config("PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"), {})
        is None
    )


def test_backbones_and_models_are_built_by_name():
    class OfAnAddOn(Backbone):
        def __init__(self, cfg, input_shape):
            super().__init__()
            self.input_shape = input_shape

        def forward(self, x):
            return {"x": x}

    class ModelOfAnAddOn(nn.Linear):
        def __init__(self, cfg):
            super().__init__(2, 3)

    BACKBONE_REGISTRY.register(OfAnAddOn)
    META_ARCH_REGISTRY.register(ModelOfAnAddOn)
    cfg = config("BACKBONE.NAME", "OfAnAddOn")
    cfg.MODEL.PIXEL_MEAN = [0.0, 0.0, 0.0]
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = "ModelOfAnAddOn", "cpu"
    assert build_backbone(cfg).input_shape == ShapeSpec(channels=3)
    assert build_backbone(cfg, ShapeSpec(channels=1)).input_shape == ShapeSpec(channels=1)
    assert build_model(cfg)(torch.zeros(1, 2)).shape == (1, 3)


OUTSIDE = {
    "detectron2.layers": ["ASPP", "ROIAlignRotated", "nms_rotated"],
    "detectron2.modeling": [
        "RetinaNet",
        "FCOS",
        "ViT",
        "SwinTransformer",
        "GeneralizedRCNNWithTTA",
    ],
    "detectron2.modeling.anchor_generator": ["RotatedAnchorGenerator"],
    "detectron2.modeling.backbone": ["RegNet", "build_resnet_backbone"],
    "detectron2.modeling.backbone.fpn": ["build_resnet_fpn_backbone"],
    "detectron2.modeling.box_regression": ["Box2BoxTransformRotated"],
    "detectron2.modeling.meta_arch": ["PanopticFPN", "ProposalNetwork"],
    "detectron2.modeling.meta_arch.semantic_seg": ["SemSegFPNHead"],
    "detectron2.modeling.roi_heads": ["CascadeROIHeads", "Res5ROIHeads"],
    "detectron2.modeling.roi_heads.keypoint_head": ["KRCNNConvDeconvUpsampleHead"],
    "detectron2.modeling.roi_heads.rotated_fast_rcnn": ["RotatedFastRCNNOutputLayers"],
}


@pytest.mark.parametrize("module", OUTSIDE)
def test_names_outside_the_subset_import_and_say_what_they_need_when_used(detectron2_kind, module):
    loaded = importlib.import_module(module)
    for name in OUTSIDE[module]:
        value = getattr(loaded, name)
        assert callable(value)
        if detectron2_kind == "subset":
            with pytest.raises(ImportError, match=rf"{name} needs the real Detectron2"):
                value()
    with pytest.raises((AttributeError, ImportError)):
        loaded.no_such_name  # noqa: B018


def test_options_outside_the_subset_say_what_they_need(detectron2_kind):
    if detectron2_kind == "real":
        pytest.skip("the real package has them")
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads

    with pytest.raises(ImportError, match="use_fed_loss"):
        FastRCNNOutputLayers(
            4, box2box_transform=Box2BoxTransform((1, 1, 1, 1)), num_classes=2, use_fed_loss=True
        )
    with pytest.raises(ImportError, match="ROIAlignRotated"):
        ROIPooler(7, [0.25], 0, "ROIAlignRotated")
    shared = {"num_classes": 2, "batch_size_per_image": 2, "positive_fraction": 0.5}
    parts = dict.fromkeys(["box_pooler", "box_head", "box_predictor", "proposal_matcher"])
    with pytest.raises(ImportError, match="keypoint_in_features"):
        StandardROIHeads(box_in_features=["p2"], keypoint_in_features=["p2"], **parts, **shared)
