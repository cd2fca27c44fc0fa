"""Rotated boxes are outside the subset: their names exist, using them raises."""

from detectron2._subset import needs_real

RotatedBoxes = needs_real("detectron2.structures.RotatedBoxes")
pairwise_iou = needs_real("detectron2.structures.pairwise_iou_rotated")
