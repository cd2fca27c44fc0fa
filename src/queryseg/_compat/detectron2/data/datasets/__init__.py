"""Data sets in COCO format: reading, writing and the built-in names."""

from detectron2._subset import outside

from . import builtin
from .coco import convert_to_coco_json, load_coco_json, register_coco_instances

__all__ = ["builtin", "convert_to_coco_json", "load_coco_json", "register_coco_instances"]

__getattr__ = outside(
    __name__,
    "get_lvis_instances_meta",
    "load_lvis_json",
    "load_sem_seg",
    "load_voc_instances",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
    "register_lvis_instances",
    "register_pascal_voc",
)
