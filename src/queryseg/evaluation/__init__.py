"""Evaluation of predictions against ground truth."""

from queryseg.evaluation.cityscapes_evaluator import CityscapesEvaluator
from queryseg.evaluation.coco_evaluator import COCOEvaluator
from queryseg.evaluation.video_evaluator import VideoEvaluator

__all__ = ["COCOEvaluator", "CityscapesEvaluator", "VideoEvaluator"]
