"""Operators with compiled CPU and CUDA kernels, and pure-torch fallbacks."""

from queryseg.ops.library import build_info, has_kernels
from queryseg.ops.ms_deform_attn import ms_deform_attn

__all__ = ["build_info", "has_kernels", "ms_deform_attn"]
