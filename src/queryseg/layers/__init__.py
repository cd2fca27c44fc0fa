"""Building blocks of the methods: attention, feed-forward, MLP, position encodings."""

from queryseg.layers.attention import MultiheadAttention
from queryseg.layers.mlp import MLP
from queryseg.layers.sine_boxes import sine_box_encoding
from queryseg.layers.sine_position import sine_code, sine_position_encoding
from queryseg.layers.transformer_blocks import (
    Activation,
    CrossAttentionBlock,
    FeedForwardBlock,
    SelfAttentionBlock,
)

__all__ = [
    "MLP",
    "Activation",
    "CrossAttentionBlock",
    "FeedForwardBlock",
    "MultiheadAttention",
    "SelfAttentionBlock",
    "sine_box_encoding",
    "sine_code",
    "sine_position_encoding",
]
