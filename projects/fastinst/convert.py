"""Names of the official FastInst release, mapped to ours."""

from queryseg.checkpoint import Layout

_PREDICTOR = "sem_seg_head.predictor."
_PIXEL_DECODER = "sem_seg_head.pixel_decoder."
_NUM_LEVELS = 3


def _pixel_decoder_rules() -> list[tuple[str, str]]:
    """Levels are counted from one and finest first; the coarsest projection is part of the top."""
    rules = [
        (f"{_PIXEL_DECODER}adapter_{level + 1}.", f"pixel_decoder.laterals.{level}.")
        for level in range(_NUM_LEVELS - 1)
    ]
    rules += [
        (f"{_PIXEL_DECODER}layer_{level + 1}.", f"pixel_decoder.outputs.{level}.")
        for level in range(_NUM_LEVELS)
    ]
    return [
        *rules,
        (f"{_PIXEL_DECODER}adapter_{_NUM_LEVELS}.", "pixel_decoder.top.projection."),
        (f"{_PIXEL_DECODER}ppm.stages.{{i}}.1.", "pixel_decoder.top.branches.{i}.1."),
        (f"{_PIXEL_DECODER}ppm.bottleneck.", "pixel_decoder.top.mix."),
    ]


def _block_rules(stream: str, official: str) -> list[tuple[str, str]]:
    """Cross-attention and feed-forward blocks of one stream, in every layer."""
    attention = f"{_PREDICTOR}transformer_{official}_cross_attention_layers.{{i}}."
    ours = f"decoder.layers.{{i}}.{stream}_update."
    return [
        (f"{attention}multihead_attn.", f"{ours}cross_attention.attention."),
        (f"{attention}norm.", f"{ours}cross_attention.norm."),
        (f"{_PREDICTOR}transformer_{official}_ffn_layers.{{i}}.", f"{ours}ffn."),
    ]


def _decoder_rules() -> list[tuple[str, str]]:
    self_attention = f"{_PREDICTOR}transformer_query_self_attention_layers.{{i}}."
    ours = "decoder.layers.{i}.query_update.self_attention."
    return [
        (f"{_PREDICTOR}meta_pos_embed", "decoder.positions.grid"),
        (f"{_PREDICTOR}empty_query_features.", "decoder.aux_feats."),
        (f"{_PREDICTOR}empty_query_pos_embed.", "decoder.aux_pos."),
        (
            f"{_PREDICTOR}query_proposal.conv_proposal_cls_logits.",
            "decoder.queries.classifier.",
        ),
        *_block_rules("pixel", official="mask"),
        *_block_rules("query", official="query"),
        (f"{self_attention}self_attn.", f"{ours}attention."),
        (f"{self_attention}norm.", f"{ours}norm."),
    ]


def _head_rules() -> list[tuple[str, str]]:
    """Prediction heads: head 0 stands before the first layer."""
    parts = {
        "decoder_query_norm_layers": "query_norm",
        "class_embed_layers": "class_embed",
        "mask_embed_layers": "mask_embed",
        "mask_features_layers": "mask_features",
    }
    return [
        (f"{_PREDICTOR}{official}.{{i}}.", f"decoder.heads.{{i}}.{ours}.")
        for official, ours in parts.items()
    ]


LAYOUTS = (
    Layout(
        name="FastInst official",
        signature=(
            f"{_PREDICTOR}meta_pos_embed",
            f"{_PREDICTOR}mask_features_layers.{{i}}.weight",
            f"{_PIXEL_DECODER}adapter_1.weight",
        ),
        rules=(
            ("backbone.", "backbone."),
            *_pixel_decoder_rules(),
            *_decoder_rules(),
            *_head_rules(),
        ),
        # The class weights of the loss: constants, stored twice because one module has two names.
        ignored=("criterion.empty_weight", f"{_PREDICTOR}criterion.empty_weight"),
    ),
)

_RELEASE = "https://github.com/junjiehe96/FastInst/releases/download/v0.1.0/"

# Asked for as `zoo://<name>`; the AP on COCO val is part of the file names.
RELEASES = {
    "fastinst_r50_d1": f"{_RELEASE}fastinst_R50_ppm-fpn_x1_576_34.9.pth",
    "fastinst_r50_d3": f"{_RELEASE}fastinst_R50_ppm-fpn_x3_640_37.9.pth",
    "fastinst_r101_d3": f"{_RELEASE}fastinst_R101_ppm-fpn_x3_640_38.9.pth",
    "fastinst_r50d_dcn_d1": f"{_RELEASE}fastinst_R50-vd-dcn_ppm-fpn_x1_576_37.4.pth",
    "fastinst_r50d_dcn_d3": f"{_RELEASE}fastinst_R50-vd-dcn_ppm-fpn_x3_640_40.1.pth",
}
