"""Matching predictions with ground truth: targets, cost terms, optimal assignment."""

from queryseg.matching.assignment import Assignment, solve_assignments
from queryseg.matching.cost_terms import cost_class, cost_dice, cost_mask
from queryseg.matching.mask_targets import MaskTargets

__all__ = [
    "Assignment",
    "MaskTargets",
    "cost_class",
    "cost_dice",
    "cost_mask",
    "solve_assignments",
]
