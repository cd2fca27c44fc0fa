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
from detectron2.structures import Boxes, Instances, ROIMasks

__all__ = [
    "assert_instances_allclose",
    "get_sample_coco_image",
    "random_boxes",
    "reload_lazy_config",
]

__getattr__ = outside(
    __name__,
    "convert_scripted_instances",
    "get_model_no_weights",
    "has_dynamic_axes",
    "register_custom_op_onnx_export",
    "reload_script_model",
    "unregister_custom_op_onnx_export",
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


def assert_instances_allclose(
    input: Instances,
    other: Instances,
    *,
    rtol: float = 1e-5,
    msg: str = "",
    size_as_tensor: bool = False,
) -> None:
    """Assert that two `Instances` have equal sizes and fields, floats up to `rtol` of the largest.

    Boxes and ROI masks may differ by 100 times `rtol`.
    """
    msg = msg.rstrip() or "Two Instances are different!"
    sizes = [input.image_size, other.image_size]
    if size_as_tensor:
        sizes = [tuple(torch.as_tensor(size).tolist()) for size in sizes]
    assert sizes[0] == sizes[1], f"{msg} image_size is {sizes[0]} vs. {sizes[1]}!"
    fields, other_fields = input.get_fields(), other.get_fields()
    assert fields.keys() == other_fields.keys(), (
        f"{msg} Fields are {sorted(fields)} vs. {sorted(other_fields)}!"
    )
    for name, value in fields.items():
        expected, atol = other_fields[name], 100 * rtol
        if isinstance(value, (Boxes, ROIMasks)):
            value, expected = value.tensor, expected.tensor
        elif value.is_floating_point():
            atol = value.abs().max().item() * rtol
        else:
            atol = 0
        assert torch.allclose(value, expected, atol=atol), f"{msg} Field {name} differs too much!"
