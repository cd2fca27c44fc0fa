"""Swin Transformers as Microsoft, timm and torchvision name them, for `queryseg.backbones.Swin`.

The release's names are ours. Its classifier, the norm before it (detectors have one per returned
stage instead) and what follows from the window size have no place in a detector.
"""

from queryseg.checkpoint.layout import Layout

_NUM_STAGES = 4
_CLASSIFIER = ("norm.", "head.")
_FROM_WINDOW_SIZE = (
    "layers.{i}.blocks.{j}.attn.relative_position_index",
    "layers.{i}.blocks.{j}.attn_mask",
)

MICROSOFT_SWIN = Layout(
    "Swin official",
    signature=("layers.0.downsample.reduction.weight", "layers.0.blocks.{i}.attn.qkv.weight"),
    rules=(("patch_embed.", "patch_embed."), ("layers.", "layers.")),
    ignored=(*_CLASSIFIER, *_FROM_WINDOW_SIZE),
)

# timm counts the step between two stages to the second of them.
TIMM_SWIN = Layout(
    "timm Swin",
    signature=(
        f"layers.{_NUM_STAGES - 1}.downsample.reduction.weight",
        "layers.0.blocks.{i}.attn.qkv.weight",
    ),
    rules=(
        ("patch_embed.", "patch_embed."),
        *(
            (f"layers.{stage + 1}.downsample.", f"layers.{stage}.downsample.")
            for stage in range(_NUM_STAGES - 1)
        ),
        ("layers.{i}.blocks.", "layers.{i}.blocks."),
    ),
    ignored=(*_CLASSIFIER, *_FROM_WINDOW_SIZE),
)

# torchvision has stages and the steps between them in one list, behind the patch embedding.
TORCHVISION_SWIN = Layout(
    "torchvision Swin",
    signature=("features.0.0.weight", "features.1.{i}.attn.relative_position_bias_table"),
    rules=(
        ("features.0.0.", "patch_embed.proj."),
        ("features.0.2.", "patch_embed.norm."),
        *(
            rule
            for stage in range(_NUM_STAGES)
            for rule in (
                (
                    f"features.{2 * stage + 1}.{{j}}.mlp.0.",
                    f"layers.{stage}.blocks.{{j}}.mlp.fc1.",
                ),
                (
                    f"features.{2 * stage + 1}.{{j}}.mlp.3.",
                    f"layers.{stage}.blocks.{{j}}.mlp.fc2.",
                ),
                (f"features.{2 * stage + 1}.{{j}}.", f"layers.{stage}.blocks.{{j}}."),
                (f"features.{2 * stage + 2}.", f"layers.{stage}.downsample."),
            )
        ),
    ),
    ignored=(*_CLASSIFIER, "features.{i}.{j}.attn.relative_position_index"),
)

SWIN_LAYOUTS = (MICROSOFT_SWIN, TIMM_SWIN, TORCHVISION_SWIN)
