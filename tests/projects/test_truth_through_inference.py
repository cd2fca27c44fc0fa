"""Ground truth through a method's own post-processing and the evaluator is nearly perfect."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances
from torchvision.ops import roi_align

from queryseg.data.masks import decode
from queryseg.data.registration import get_dataset_dicts, register_coco_json
from queryseg.data.shapes import CLASS_NAMES, ShapesSpec, write_shapes
from queryseg.engine import load_config
from queryseg.evaluation import COCOEvaluator
from queryseg.projects.queryinst.detections import Detections
from queryseg.projects.soit.mask_resizing import output_masks

PADDED_SIZE = (256, 352)
STRIDE = 4


@dataclass
class Truth:
    """Objects of an image of `size`: `masks` (N, H, W) bool and `classes` (N,)."""

    size: tuple[int, int]
    masks: torch.Tensor
    classes: torch.Tensor

    @property
    def boxes_xyxy_abs(self) -> torch.Tensor:
        return BitMasks(self.masks).get_bounding_boxes().tensor

    @property
    def padded(self) -> torch.Tensor:
        bottom, right = (padded - side for padded, side in zip(PADDED_SIZE, self.size))
        return F.pad(self.masks.float(), (0, right, 0, bottom))


def with_fastinst(truth: Truth) -> Instances:
    """Masks as the share of each cell of the feature grid that is covered."""
    model = instantiate(load_config("fastinst/fastinst_tiny.py").model)
    assert model.num_classes == len(CLASS_NAMES)
    return model.instances_of_image(
        20.0 * F.one_hot(truth.classes, model.num_classes + 1),
        torch.logit(F.avg_pool2d(truth.padded[:, None], STRIDE)[:, 0], eps=1e-3),
        padded_size=PADDED_SIZE,
        image_size=truth.size,
        output_size=truth.size,
    )


def with_queryinst(truth: Truth) -> Instances:
    """Masks as the share of each of 28 x 28 cells of the box that is covered."""
    index = torch.arange(len(truth.masks))
    boxes = torch.cat((index[:, None], truth.boxes_xyxy_abs), dim=1)
    covered = roi_align(truth.padded[:, None], boxes, 28, aligned=True)[:, 0]
    detections = Detections(
        torch.ones(len(index)),
        truth.classes,
        index,
        truth.boxes_xyxy_abs,
        covered,
    )
    return detections.to_instances(truth.size, truth.size)


def with_soit(truth: Truth) -> Instances:
    """Masks as the mean of the targets of training around the pixels that upsampling keeps."""
    loss = instantiate(load_config("soit/soit_tiny.py").model.criterion).mask_loss
    map_size = tuple(side // STRIDE for side in PADDED_SIZE)
    soft = loss.targets(truth.masks, PADDED_SIZE, map_size)
    around = F.avg_pool2d(F.pad(soft[:, None], (0, 1, 0, 1)), loss.factor + 1, loss.factor)[:, 0]
    instances = Instances(truth.size)
    instances.pred_masks = output_masks(
        torch.logit(around, eps=1e-3),
        padded_size=PADDED_SIZE,
        image_size=truth.size,
        output_size=truth.size,
        factor=loss.factor,
    )
    instances.pred_boxes = Boxes(truth.boxes_xyxy_abs)
    instances.scores = torch.ones(len(truth.classes))
    instances.pred_classes = truth.classes
    return instances


@pytest.mark.parametrize(
    ("predict", "least_segm", "least_bbox"),
    [(with_fastinst, 95.0, 85.0), (with_queryinst, 95.0, 99.9), (with_soit, 95.0, 99.9)],
)
def test_ground_truth_scores_nearly_perfect(
    predict: Callable[[Truth], Instances], least_segm: float, least_bbox: float, tmp_path: Path
) -> None:
    spec = ShapesSpec(train=0, val=16, height=250, width=330, max_objects=4)
    write_shapes(tmp_path, spec)
    name = f"through_inference_{tmp_path.name}"
    register_coco_json(name, tmp_path / "annotations" / "val.json", tmp_path / "val")
    evaluator = COCOEvaluator(name)
    evaluator.reset()
    for record in get_dataset_dicts(name, filter_empty=False):
        size = (record["height"], record["width"])
        objects = [a for a in record["annotations"] if not a["iscrowd"]]
        if not objects:
            continue
        masks = torch.stack([torch.as_tensor(decode(a["segmentation"], *size)) for a in objects])
        classes = torch.tensor([a["category_id"] for a in objects])
        instances = predict(Truth(size, masks.bool(), classes))
        evaluator.process([{"image_id": record["image_id"]}], [{"instances": instances}])
    results = evaluator.evaluate()
    assert results["segm"]["AP"] >= least_segm
    assert results["bbox"]["AP"] >= least_bbox
