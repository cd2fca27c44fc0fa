"""Keypoints are outside the subset: their names exist, using them raises."""

from detectron2._subset import needs_real

Keypoints = needs_real("detectron2.structures.Keypoints")
heatmaps_to_keypoints = needs_real("detectron2.structures.heatmaps_to_keypoints")
