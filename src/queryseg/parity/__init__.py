"""Parity with the official implementations on their golden data."""

from queryseg.parity.bundle import Bundle, find_bundle, known_bundles
from queryseg.parity.fill import fill_by_official_names, filled, named_generator
from queryseg.parity.images import block_image, noise_image
from queryseg.parity.instances import align_instances
from queryseg.parity.report import ParityReport

__all__ = [
    "Bundle",
    "ParityReport",
    "align_instances",
    "block_image",
    "fill_by_official_names",
    "filled",
    "find_bundle",
    "known_bundles",
    "named_generator",
    "noise_image",
]
