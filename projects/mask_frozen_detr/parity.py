"""The golden bundles of the detectors that a mask network is put on."""

from queryseg.detectors.parity import DETECTOR_BUNDLES as BUNDLES

__all__ = ["BUNDLES"]
