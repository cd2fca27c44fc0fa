"""Checkpoints: safe reading, official layouts, load report, atomic saving."""

from queryseg.checkpoint.checkpointer import Checkpointer
from queryseg.checkpoint.errors import CheckpointError, UnsafeCheckpointError
from queryseg.checkpoint.layout import Layout
from queryseg.checkpoint.report import LoadReport

__all__ = ["CheckpointError", "Checkpointer", "Layout", "LoadReport", "UnsafeCheckpointError"]
