"""Checkpoints: safe reading, official layouts, load report, atomic saving."""

from queryseg.checkpoint.checkpointer import Checkpointer
from queryseg.checkpoint.errors import CheckpointError, UnsafeCheckpointError
from queryseg.checkpoint.layout import Layout
from queryseg.checkpoint.loading import load_into
from queryseg.checkpoint.locate import open_checkpoint
from queryseg.checkpoint.report import LoadReport

__all__ = [
    "CheckpointError",
    "Checkpointer",
    "Layout",
    "LoadReport",
    "UnsafeCheckpointError",
    "load_into",
    "open_checkpoint",
]
