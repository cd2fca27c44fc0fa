"""Checkpoints: safe reading, official layouts, load report, atomic saving."""

from queryseg.checkpoint.layout import Layout

__all__ = ["Layout"]
