"""DETR-like detectors that other methods build on, and the contract between the two."""

from queryseg.detectors.contract import Detected, Detector

__all__ = ["Detected", "Detector"]
