"""QueryInst with 300 queries on Swin-T, 36 epochs on crops. The release gives no figure for it."""

from ..common.swin import swin_tiny as _swin
from .queryinst_r50_300q_3x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up = _swin

# Every norm that the release's names tell by the word: not those of the class and box branches.
optimizer.params.no_decay = [
    "relative_position_bias_table",
    "bottom_up.norm",
    "patch_embed.norm",
    "downsample.norm",
    ".norm1.",
    ".norm2.",
    "attention.norm",
    "dynamic_conv.norm",
    "projection_norm",
    "interaction_norm",
    "ffn.norm",
]

train.init_checkpoint = "zoo://swin_tiny"
