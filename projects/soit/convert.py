"""Names of the official SOIT release, mapped to ours."""

from queryseg.checkpoint import Layout
from queryseg.checkpoint.resnet_layout import TORCHVISION_RESNET

_HEAD = "bbox_head."
_TRANSFORMER = f"{_HEAD}transformer."
_NUM_LAYERS = 6
_LINEAR_LAYERS = ((0, 0), (2, 1), (4, 2))
"""Places of the linear layers between ReLUs in the release, and in ours."""


def _mlp_rules(official: str, ours: str) -> list[tuple[str, str]]:
    return [
        (f"{official}.{theirs}.", f"{ours}.layers.{place}.") for theirs, place in _LINEAR_LAYERS
    ]


def _neck_rules() -> list[tuple[str, str]]:
    """The extra level is counted apart in the release, behind the three others here."""
    levels = (("extra_convs.0", "3"), ("convs.{i}", "{i}"))
    return [
        rule
        for theirs, ours in levels
        for rule in (
            (f"neck.{theirs}.conv.", f"projection.levels.{ours}.0."),
            (f"neck.{theirs}.gn.", f"projection.levels.{ours}.1."),
        )
    ]


def _encoder_rules(official: str, ours: str) -> list[tuple[str, str]]:
    """One attention, one feed-forward block and their norms, in every layer."""
    layer, our_layer = f"{_TRANSFORMER}{official}.layers.{{i}}.", f"{ours}.layers.{{i}}."
    return [
        (f"{layer}attentions.0.", f"{our_layer}attention."),
        (f"{layer}norms.0.", f"{our_layer}norm."),
        (f"{layer}ffns.0.layers.0.0.", f"{our_layer}ffn.linear1."),
        (f"{layer}ffns.0.layers.1.", f"{our_layer}ffn.linear2."),
        (f"{layer}norms.1.", f"{our_layer}ffn.norm."),
    ]


def _decoder_rules() -> list[tuple[str, str]]:
    layer, ours = f"{_TRANSFORMER}decoder.layers.{{i}}.", "decoder.layers.{i}."
    return [
        (f"{layer}attentions.0.attn.", f"{ours}self_attention.attention."),
        (f"{layer}norms.0.", f"{ours}self_attention.norm."),
        (f"{layer}attentions.1.", f"{ours}cross_attention."),
        (f"{layer}norms.1.", f"{ours}norm."),
        (f"{layer}ffns.0.layers.0.0.", f"{ours}ffn.linear1."),
        (f"{layer}ffns.0.layers.1.", f"{ours}ffn.linear2."),
        (f"{layer}norms.2.", f"{ours}ffn.norm."),
    ]


def _proposal_rules() -> list[tuple[str, str]]:
    """The heads of the proposals stand behind those of the decoder layers."""
    return [
        (f"{_TRANSFORMER}enc_output.", "queries.proposals.linear."),
        (f"{_TRANSFORMER}enc_output_norm.", "queries.proposals.norm."),
        (f"{_TRANSFORMER}pos_trans.", "queries.queries.linear."),
        (f"{_TRANSFORMER}pos_trans_norm.", "queries.queries.norm."),
        (f"{_HEAD}cls_branches.{_NUM_LAYERS}.", "queries.proposals.class_head."),
        *_mlp_rules(f"{_HEAD}reg_branches.{_NUM_LAYERS}", "queries.proposals.box_head"),
    ]


def _head_rules() -> list[tuple[str, str]]:
    """One mask head has six names in the release: the last is the one that counts there."""
    return [
        (f"{_HEAD}cls_branches.{{i}}.", "class_heads.{i}."),
        *_mlp_rules(f"{_HEAD}reg_branches.{{i}}", "decoder.box_heads.{i}"),
        *_mlp_rules(f"{_HEAD}seg_branches.{_NUM_LAYERS - 1}", "mask_branch.heads.0"),
        (f"{_TRANSFORMER}mask_trans.", "mask_branch.encoder.projection."),
        (f"{_TRANSFORMER}mask_trans_norm.", "mask_branch.encoder.norm."),
    ]


LAYOUTS = (
    Layout(
        name="SOIT official",
        signature=(
            f"{_TRANSFORMER}seg_encoder.layers.{{i}}.attentions.0.value_proj.weight",
            f"{_HEAD}seg_branches.{{i}}.4.weight",
        ),
        rules=(
            *(
                (f"backbone.{theirs}", f"backbone.{ours}")
                for theirs, ours in TORCHVISION_RESNET.rules
            ),
            *_neck_rules(),
            (f"{_TRANSFORMER}level_embeds", "tokens.level_embed"),
            *_encoder_rules("encoder", "encoder"),
            *_encoder_rules("seg_encoder", "mask_branch.encoder.encoder"),
            *_decoder_rules(),
            *_proposal_rules(),
            *_head_rules(),
        ),
        # Other names of the one mask head, and counters of norms that are frozen here.
        ignored=(
            *(f"{_HEAD}seg_branches.{index}." for index in range(_NUM_LAYERS - 1)),
            "backbone.bn1.num_batches_tracked",
            "backbone.layer{s}.{i}.bn{c}.num_batches_tracked",
            "backbone.layer{s}.{i}.downsample.1.num_batches_tracked",
        ),
    ),
)
