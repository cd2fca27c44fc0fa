"""Losses, one per file, and the sampling of the points they are computed on."""

from queryseg.losses.class_cross_entropy import class_cross_entropy
from queryseg.losses.mask_bce import mask_bce_loss
from queryseg.losses.mask_dice import mask_dice_loss
from queryseg.losses.point_sampling import PointSampler, sample_maps, sample_masks, uniform_points
from queryseg.losses.target_count import mean_target_count

__all__ = [
    "PointSampler",
    "class_cross_entropy",
    "mask_bce_loss",
    "mask_dice_loss",
    "mean_target_count",
    "sample_maps",
    "sample_masks",
    "uniform_points",
]
