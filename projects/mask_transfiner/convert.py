"""Names of the official Mask Transfiner release, mapped to ours."""

from queryseg.checkpoint import Layout

_POOLER = "roi_heads.mask_pooler."
_HEAD = "roi_heads.mask_head."
_ENCODER = f"{_HEAD}encoder."
_LAYER = f"{_ENCODER}layers.{{i}}."
_OUR_LAYER = f"{_HEAD}refiner.sequence_encoder.layers.{{i}}."
_NUM_CONVS = 4


def _conv_rules() -> list[tuple[str, str]]:
    """The release counts the convolutions of a branch from one."""
    branches = (("mask_fcn", "coarse_head"), ("mask_fcn_uncertain", "detector"))
    return [
        (f"{_HEAD}{official}{number + 1}.", f"{_HEAD}{ours}.convs.{number}.")
        for official, ours in branches
        for number in range(_NUM_CONVS)
    ]


LAYOUTS = (
    Layout(
        name="Mask Transfiner official",
        signature=(
            f"{_POOLER}conv_norm_relus_semantic.{{i}}.weight",
            f"{_HEAD}predictor_uncertain.weight",
            f"{_ENCODER}conv_fuse.weight",
        ),
        rules=(
            (f"{_POOLER}conv_norm_relus_semantic.", f"{_HEAD}semantic.convs."),
            (f"{_HEAD}predictor_semantic_s.", f"{_HEAD}semantic.classifier."),
            *_conv_rules(),
            (f"{_HEAD}deconv.", f"{_HEAD}coarse_head.deconv."),
            (f"{_HEAD}predictor.", f"{_HEAD}coarse_head.predictor."),
            (f"{_HEAD}deconv_bo.", f"{_HEAD}coarse_head.boundary_deconv."),
            (f"{_HEAD}predictor_bo.", f"{_HEAD}coarse_head.boundary_predictor."),
            (f"{_HEAD}deconv_uncertain.", f"{_HEAD}detector.deconv."),
            (f"{_HEAD}predictor_uncertain.", f"{_HEAD}detector.predictor."),
            (f"{_ENCODER}conv_fuse.", f"{_HEAD}refiner.node_encoder.fuse."),
            (f"{_ENCODER}conv_r1.", f"{_HEAD}refiner.decoder."),
            (f"{_LAYER}self_attn.", f"{_OUR_LAYER}attention."),
            (f"{_LAYER}norm1.", f"{_OUR_LAYER}norm."),
            (f"{_LAYER}norm2.", f"{_OUR_LAYER}ffn.norm."),
            (f"{_LAYER}linear1.", f"{_OUR_LAYER}ffn.linear1."),
            (f"{_LAYER}linear2.", f"{_OUR_LAYER}ffn.linear2."),
            ("backbone.", "backbone."),
            ("proposal_generator.", "proposal_generator."),
            ("roi_heads.box_head.", "roi_heads.box_head."),
            ("roi_heads.box_predictor.", "roi_heads.box_predictor."),
        ),
    ),
)
