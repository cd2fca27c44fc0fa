"""Ground truth through FastInst's own post-processing and the evaluator is nearly perfect."""

from pathlib import Path

import torch
import torch.nn.functional as F
from fastinst_model import small_model

from queryseg.data.masks import decode
from queryseg.data.registration import get_dataset_dicts, register_coco_json
from queryseg.data.shapes import CLASS_NAMES, ShapesSpec, write_shapes
from queryseg.evaluation import COCOEvaluator

STRIDE = 4


def _logits_on_the_feature_grid(masks: torch.Tensor, padded_size: tuple[int, int]) -> torch.Tensor:
    """(N, H, W) bool to (N, h, w): the share of each cell that is covered, as a logit."""
    bottom, right = (padded - size for padded, size in zip(padded_size, masks.shape[1:]))
    padded = F.pad(masks.float(), (0, right, 0, bottom))
    return torch.logit(F.avg_pool2d(padded[:, None], STRIDE)[:, 0], eps=1e-3)


def test_quarter_size_ground_truth_scores_at_least_95_ap(tmp_path: Path) -> None:
    spec = ShapesSpec(train=0, val=16, height=250, width=330, max_objects=4)
    write_shapes(tmp_path, spec)
    name = f"through_inference_{tmp_path.name}"
    register_coco_json(name, tmp_path / "annotations" / "val.json", tmp_path / "val")
    model = small_model()
    assert model.num_classes == len(CLASS_NAMES)
    evaluator = COCOEvaluator(name)
    evaluator.reset()
    for record in get_dataset_dicts(name, filter_empty=False):
        size = (record["height"], record["width"])
        objects = [a for a in record["annotations"] if not a["iscrowd"]]
        if not objects:
            continue
        masks = torch.stack([torch.as_tensor(decode(a["segmentation"], *size)) for a in objects])
        classes = torch.tensor([a["category_id"] for a in objects])
        padded_size = (256, 352)
        instances = model.instances_of_image(
            20.0 * F.one_hot(classes, model.num_classes + 1),
            _logits_on_the_feature_grid(masks.bool(), padded_size),
            padded_size=padded_size,
            image_size=size,
            output_size=size,
        )
        evaluator.process([{"image_id": record["image_id"]}], [{"instances": instances}])
    results = evaluator.evaluate()
    assert results["segm"]["AP"] >= 95.0
    assert results["bbox"]["AP"] >= 85.0
