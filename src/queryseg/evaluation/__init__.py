"""Evaluation of predictions against ground truth."""

from queryseg.evaluation.coco_evaluator import COCOEvaluator

__all__ = ["COCOEvaluator"]
