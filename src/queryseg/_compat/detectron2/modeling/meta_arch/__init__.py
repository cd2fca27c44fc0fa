"""Whole models."""

from detectron2._subset import outside

from .build import META_ARCH_REGISTRY, build_model
from .rcnn import GeneralizedRCNN
from .semantic_seg import SEM_SEG_HEADS_REGISTRY, build_sem_seg_head

__all__ = [
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "GeneralizedRCNN",
    "build_model",
    "build_sem_seg_head",
]

__getattr__ = outside(
    __name__,
    "DenseDetector",
    "FCOS",
    "PanopticFPN",
    "ProposalNetwork",
    "RetinaNet",
    "SemanticSegmentor",
)
