"""Matching predictions with ground truth: targets, cost terms, optimal assignment."""

from queryseg.matching.assignment import Assignment, solve_assignments
from queryseg.matching.box_matcher import BoxMatcher
from queryseg.matching.box_targets import BoxTargets
from queryseg.matching.cost_terms import (
    cost_box,
    cost_class,
    cost_dice,
    cost_focal,
    cost_giou,
    cost_mask,
)
from queryseg.matching.mask_targets import MaskTargets

__all__ = [
    "Assignment",
    "BoxMatcher",
    "BoxTargets",
    "MaskTargets",
    "cost_box",
    "cost_class",
    "cost_dice",
    "cost_focal",
    "cost_giou",
    "cost_mask",
    "solve_assignments",
]
