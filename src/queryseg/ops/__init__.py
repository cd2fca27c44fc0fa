"""Operators with compiled CPU and CUDA kernels, and pure-torch fallbacks."""

from queryseg.ops.dynamic_conv import dynamic_conv
from queryseg.ops.instance_deform_attn import instance_deform_attn
from queryseg.ops.library import build_info, has_kernels
from queryseg.ops.ms_deform_attn import ms_deform_attn
from queryseg.ops.ms_deform_attn_fused import ms_deform_attn_fused
from queryseg.ops.quadtree_gather import gather_nodes

__all__ = [
    "build_info",
    "dynamic_conv",
    "gather_nodes",
    "has_kernels",
    "instance_deform_attn",
    "ms_deform_attn",
    "ms_deform_attn_fused",
]
