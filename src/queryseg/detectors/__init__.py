"""DETR-like detectors that other methods build on, and the contract between the two."""

from queryseg.detectors.build import build_dino, build_h_detr
from queryseg.detectors.class_numbering import ClassNumbering
from queryseg.detectors.contract import Detected, Detector
from queryseg.detectors.dino import DINO
from queryseg.detectors.h_detr import HDETR
from queryseg.detectors.two_stage import TwoStageDetector

__all__ = [
    "DINO",
    "HDETR",
    "ClassNumbering",
    "Detected",
    "Detector",
    "TwoStageDetector",
    "build_dino",
    "build_h_detr",
]
