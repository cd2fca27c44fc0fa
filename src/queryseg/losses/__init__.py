"""Losses, one per file, and the sampling of the points they are computed on."""

from queryseg.losses.box_losses import box_giou_loss, box_l1_loss
from queryseg.losses.class_cross_entropy import class_cross_entropy
from queryseg.losses.class_focal import class_focal_loss
from queryseg.losses.mask_bce import mask_bce_loss
from queryseg.losses.mask_dice import mask_dice_loss
from queryseg.losses.point_sampling import PointSampler, sample_maps, sample_masks, uniform_points
from queryseg.losses.target_count import mean_target_count

__all__ = [
    "PointSampler",
    "box_giou_loss",
    "box_l1_loss",
    "class_cross_entropy",
    "class_focal_loss",
    "mask_bce_loss",
    "mask_dice_loss",
    "mean_target_count",
    "sample_maps",
    "sample_masks",
    "uniform_points",
]
