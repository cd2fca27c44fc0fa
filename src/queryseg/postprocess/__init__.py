"""From raw predictions to instances: top classes, mask resizing, mask scores, boxes."""

from queryseg.postprocess.mask_boxes import boxes_from_masks
from queryseg.postprocess.mask_quality import mask_quality
from queryseg.postprocess.paste_masks import paste_masks
from queryseg.postprocess.resize_masks import resize_masks
from queryseg.postprocess.top_classes import top_classes

__all__ = ["boxes_from_masks", "mask_quality", "paste_masks", "resize_masks", "top_classes"]
