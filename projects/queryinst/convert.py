"""Names of the official QueryInst and Sparse R-CNN releases, mapped to ours."""

from queryseg.checkpoint import Layout
from queryseg.checkpoint.resnet_layout import TORCHVISION_RESNET

Rules = tuple[tuple[str, str], ...]

_BACKBONE = "backbone.bottom_up."
_STAGE = "decoder.stages.{t}."

# Parts of a stage: ours, mmdetection's (QueryInst), Detectron2's (Sparse R-CNN).
_STAGE_PARTS = (
    ("attention.attention.", "attention.attn.", "self_attn."),
    ("attention.norm.", "attention_norm.", "norm1."),
    (
        "box_head.dynamic_conv.dynamic_layer.",
        "instance_interactive_conv.dynamic_layer.",
        "inst_interact.dynamic_layer.",
    ),
    (
        "box_head.dynamic_conv.norm_in.",
        "instance_interactive_conv.norm_in.",
        "inst_interact.norm1.",
    ),
    (
        "box_head.dynamic_conv.norm_out.",
        "instance_interactive_conv.norm_out.",
        "inst_interact.norm2.",
    ),
    ("box_head.projection.", "instance_interactive_conv.fc_layer.", "inst_interact.out_layer."),
    ("box_head.projection_norm.", "instance_interactive_conv.fc_norm.", "inst_interact.norm3."),
    ("box_head.interaction_norm.", "instance_interactive_conv_norm.", "norm2."),
    ("box_head.ffn.linear1.", "ffn.layers.0.0.", "linear1."),
    ("box_head.ffn.linear2.", "ffn.layers.1.", "linear2."),
    ("box_head.ffn.norm.", "ffn_norm.", "norm3."),
    ("box_head.class_layers.{i}.", "cls_fcs.{i}.", "cls_module.{i}."),
    ("box_head.box_layers.{i}.", "reg_fcs.{i}.", "reg_module.{i}."),
    ("box_head.class_embed.", "fc_cls.", "class_logits."),
    ("box_head.box_embed.", "fc_reg.", "bboxes_delta."),
)


def _backbone_rules() -> Rules:
    """A ResNet by torchvision's names, with deformable convolutions as mmcv names them; or Swin."""
    deformable = tuple(
        (
            f"backbone.layer{layer}.{{i}}.conv2.conv_offset.",
            f"{_BACKBONE}res{layer + 1}.{{i}}.conv2_offset.",
        )
        for layer in (2, 3, 4)
    )
    resnet = tuple(
        (f"backbone.{official}", f"{_BACKBONE}{ours}")
        for official, ours in TORCHVISION_RESNET.rules
    )
    return (*deformable, *resnet, ("backbone.", _BACKBONE))


def _pyramid_rules() -> Rules:
    levels = range(4)
    return tuple(
        rule
        for level in levels
        for rule in (
            (f"neck.lateral_convs.{level}.conv.", f"backbone.fpn_lateral{level + 2}."),
            (f"neck.fpn_convs.{level}.conv.", f"backbone.fpn_output{level + 2}."),
        )
    )


def _mask_head_rules() -> Rules:
    official, ours = "roi_head.mask_head.{t}.", "mask_branch.heads.{t}."
    return (
        (f"{official}convs.{{i}}.bn.", f"{ours}convs.{{i}}.norm."),
        (f"{official}convs.{{i}}.conv.", f"{ours}convs.{{i}}."),
        (f"{official}upsample.", f"{ours}upsample."),
        (f"{official}conv_logits.", f"{ours}classifier."),
        (f"{official}instance_interactive_conv.", f"{ours}dynamic_conv."),
    )


QUERYINST = Layout(
    name="QueryInst official",
    signature=(
        "rpn_head.init_proposal_bboxes.weight",
        "roi_head.mask_head.{t}.instance_interactive_conv.dynamic_layer.weight",
    ),
    rules=(
        *_pyramid_rules(),
        *_backbone_rules(),
        ("rpn_head.init_proposal_bboxes.weight", "decoder.proposals.boxes_cxcywh_norm"),
        ("rpn_head.init_proposal_features.weight", "decoder.proposals.query_feats"),
        *(
            (f"roi_head.bbox_head.{{t}}.{official}", f"{_STAGE}{ours}")
            for ours, official, _ in _STAGE_PARTS
        ),
        *_mask_head_rules(),
    ),
    # Follows from the window size.
    ignored=("backbone.layers.{i}.blocks.{j}.attn.relative_position_index",),
)

# A detector without masks: everything but the mask heads comes from it.
SPARSE_RCNN = Layout(
    name="Sparse R-CNN (Detectron2)",
    signature=("init_proposal_boxes.weight", "head.head_series.{t}.inst_interact.norm1.weight"),
    rules=(
        ("backbone.", "backbone."),
        ("init_proposal_boxes.weight", "decoder.proposals.boxes_cxcywh_norm"),
        ("init_proposal_features.weight", "decoder.proposals.query_feats"),
        *(
            (f"head.head_series.{{t}}.{official}", f"{_STAGE}{ours}")
            for ours, _, official in _STAGE_PARTS
        ),
    ),
    covers=("backbone.", "decoder."),
)

LAYOUTS = (QUERYINST, SPARSE_RCNN)
