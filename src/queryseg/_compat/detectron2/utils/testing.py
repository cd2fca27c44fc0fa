"""What tests of detection models share."""

import os
import tempfile
from typing import Any

import numpy as np
import torch

from detectron2._subset import outside
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image

__all__ = ["get_sample_coco_image", "random_boxes", "reload_lazy_config"]

__getattr__ = outside(
    __name__,
    "assert_instances_allclose",
    "convert_scripted_instances",
    "get_model_no_weights",
    "reload_script_model",
)


def random_boxes(
    num_boxes: int, max_coord: float = 100, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return random boxes (num_boxes, 4), xyxy, at least 1 wide, up to `max_coord`."""
    boxes = (torch.rand(num_boxes, 4, device=device) * (max_coord * 0.5)).clamp_(min=1.0)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def get_sample_coco_image(tensor: bool = True) -> torch.Tensor | np.ndarray:
    """Return an image of `coco_2017_val_100`, BGR, as tensor (3, H, W) or array (H, W, 3)."""
    image = read_image(DatasetCatalog.get("coco_2017_val_100")[0]["file_name"], format="BGR")
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) if tensor else image


def reload_lazy_config(cfg: Any) -> Any:
    """Save a config, load it again and return it."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.yaml")
        LazyConfig.save(cfg, path)
        return LazyConfig.load(path)
