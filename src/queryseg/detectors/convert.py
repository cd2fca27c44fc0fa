"""Names of the official and the detrex files of H-Deformable-DETR and DINO, mapped to ours."""

from dataclasses import replace

from queryseg.checkpoint import Layout
from queryseg.checkpoint.resnet_layout import TORCHVISION_RESNET

Rules = tuple[tuple[str, str], ...]

_ENCODER = "transformer.encoder.layers.{i}."
_DECODER = "transformer.decoder.layers.{i}."
_RELATIVE_POSITION = "layers.{s}.blocks.{b}.attn.relative_position_index"


def _backbone(prefix: str, resnet_prefix: str) -> Rules:
    """A ResNet by torchvision's names, else Swin or FocalNet by their own."""
    resnet = tuple(
        (f"{resnet_prefix}{official}", f"backbone.{ours}")
        for official, ours in TORCHVISION_RESNET.rules
    )
    return (*resnet, (prefix, "backbone."))


_PYRAMID: Rules = (
    ("input_proj.", "projection.levels."),
    ("transformer.level_embed", "tokens.level_embed"),
    (f"{_ENCODER}self_attn.", "encoder.layers.{i}.attention."),
    (f"{_ENCODER}norm1.", "encoder.layers.{i}.norm."),
    (f"{_ENCODER}linear{{n}}.", "encoder.layers.{i}.ffn.linear{n}."),
    (f"{_ENCODER}norm2.", "encoder.layers.{i}.ffn.norm."),
    ("transformer.enc_output.", "proposals.linear."),
    ("transformer.enc_output_norm.", "proposals.norm."),
)
_DECODER_LAYERS: Rules = (
    (f"{_DECODER}self_attn.", "decoder.layers.{i}.self_attention.attention."),
    (f"{_DECODER}norm2.", "decoder.layers.{i}.self_attention.norm."),
    (f"{_DECODER}cross_attn.", "decoder.layers.{i}.cross_attention."),
    (f"{_DECODER}norm1.", "decoder.layers.{i}.norm."),
    (f"{_DECODER}linear{{n}}.", "decoder.layers.{i}.ffn.linear{n}."),
    (f"{_DECODER}norm3.", "decoder.layers.{i}.ffn.norm."),
)
_HEADS_EACH: Rules = (
    ("class_embed.6.", "proposals.class_head."),
    ("bbox_embed.6.", "proposals.box_head."),
    ("class_embed.{i}.", "class_heads.{i}."),
    ("bbox_embed.{i}.", "decoder.box_heads.{i}."),
)
_HDETR_QUERIES: Rules = (
    ("transformer.pos_trans.", "queries.linear."),
    ("transformer.pos_trans_norm.", "queries.norm."),
)
_DINO_QUERIES: Rules = (
    ("transformer.tgt_embed.", "queries.content."),
    ("transformer.decoder.ref_point_head.", "decoder.query_position.mlp."),
    ("transformer.decoder.norm.", "decoder.norm."),
    ("label_enc.", "denoising.label_embed."),
)
# The same modules under a second name.
_ALIASES = ("transformer.decoder.class_embed.", "transformer.decoder.bbox_embed.")


_HDETR = Layout(
    name="H-Deformable-DETR official",
    signature=("transformer.pos_trans.weight", "query_embed.weight", "input_proj.{i}.0.weight"),
    rules=(
        *_backbone("backbone.0.body.", "backbone.0.body."),
        *_PYRAMID,
        *_DECODER_LAYERS,
        *_HEADS_EACH,
        *_HDETR_QUERIES,
        ("query_embed.", "queries.content."),
    ),
    ignored=(*_ALIASES, f"backbone.0.body.{_RELATIVE_POSITION}"),
)
_DINO = Layout(
    name="DINO official",
    signature=("transformer.tgt_embed.weight", "transformer.enc_out_class_embed.weight"),
    rules=(
        *_backbone("backbone.0.", "backbone.0.body."),
        *_PYRAMID,
        *_DECODER_LAYERS,
        ("class_embed.0.", "class_heads.0."),
        ("bbox_embed.0.", "decoder.box_heads.0."),
        ("transformer.enc_out_class_embed.", "proposals.class_head."),
        ("transformer.enc_out_bbox_embed.", "proposals.box_head."),
        *_DINO_QUERIES,
    ),
    # One head under the names of all layers.
    ignored=(
        *_ALIASES,
        *(f"{head}_embed.{layer}." for head in ("class", "bbox") for layer in range(1, 6)),
        f"backbone.0.{_RELATIVE_POSITION}",
    ),
)

_DETREX_LAYERS: Rules = (
    ("neck.convs.{i}.conv.", "projection.levels.{i}.0."),
    ("neck.convs.{i}.norm.", "projection.levels.{i}.1."),
    ("transformer.level_embeds", "tokens.level_embed"),
    (f"{_ENCODER}attentions.0.", "encoder.layers.{i}.attention."),
    (f"{_ENCODER}norms.0.", "encoder.layers.{i}.norm."),
    (f"{_ENCODER}ffns.0.layers.0.0.", "encoder.layers.{i}.ffn.linear1."),
    (f"{_ENCODER}ffns.0.layers.1.", "encoder.layers.{i}.ffn.linear2."),
    (f"{_ENCODER}norms.1.", "encoder.layers.{i}.ffn.norm."),
    (f"{_DECODER}attentions.0.attn.", "decoder.layers.{i}.self_attention.attention."),
    (f"{_DECODER}norms.0.", "decoder.layers.{i}.self_attention.norm."),
    (f"{_DECODER}attentions.1.", "decoder.layers.{i}.cross_attention."),
    (f"{_DECODER}norms.1.", "decoder.layers.{i}.norm."),
    (f"{_DECODER}ffns.0.layers.0.0.", "decoder.layers.{i}.ffn.linear1."),
    (f"{_DECODER}ffns.0.layers.1.", "decoder.layers.{i}.ffn.linear2."),
    (f"{_DECODER}norms.2.", "decoder.layers.{i}.ffn.norm."),
    ("transformer.enc_output.", "proposals.linear."),
    ("transformer.enc_output_norm.", "proposals.norm."),
    *_HEADS_EACH,
    ("backbone.", "backbone."),
)


_DETREX_SIGNATURE = ("neck.convs.0.conv.weight", "transformer.level_embeds")


def _detrex(name: str, queries: Rules, signature: tuple[str, ...], num_features: int) -> Layout:
    """A detrex file; the levels made from the last map are counted on their own there."""
    extra = f"projection.levels.{num_features}"
    return Layout(
        name=name,
        signature=(
            *_DETREX_SIGNATURE,
            f"neck.convs.{num_features - 1}.conv.weight",
            *signature,
        ),
        rules=(
            ("neck.extra_convs.0.conv.", f"{extra}.0."),
            ("neck.extra_convs.0.norm.", f"{extra}.1."),
            *_DETREX_LAYERS,
            *queries,
        ),
        ignored=(*_ALIASES, "criterion.", f"backbone.{_RELATIVE_POSITION}"),
    )


DETECTOR_LAYOUTS = (
    _HDETR,
    _DINO,
    _detrex(
        "H-Deformable-DETR of detrex",
        (*_HDETR_QUERIES, ("query_embedding.", "queries.content.")),
        ("transformer.pos_trans.weight",),
        num_features=3,
    ),
    *(
        _detrex(
            f"DINO of detrex, {num_features + 1} scales",
            _DINO_QUERIES,
            ("transformer.tgt_embed.weight",),
            num_features=num_features,
        )
        for num_features in (4, 3)
    ),
)


def inside(layout: Layout, prefix: str) -> Layout:
    """The same names for a model that holds the detector under `prefix`, ending in a dot."""
    return replace(
        layout,
        name=f"{layout.name}, as {prefix.rstrip('.')}",
        rules=tuple((official, f"{prefix}{ours}") for official, ours in layout.rules),
        covers=prefix,
    )
