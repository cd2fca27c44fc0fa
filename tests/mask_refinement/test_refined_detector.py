"""The quadtree mask head on detectors that are no R-CNN."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import BitMasks, Boxes, Instances, pairwise_iou
from refinement_case import make_head
from torch import nn

from queryseg.engine import apply_overrides, load_config
from queryseg.mask_refinement.feature_pyramid import FeaturePyramid
from queryseg.mask_refinement.refined_detector import RefinedDetector

SIZES = ((96, 128), (64, 160), (96, 128))  # of images in one batch


def _inputs(training: bool) -> list[dict]:
    batch = []
    for count in (2, 0):
        boxes = torch.tensor([[10.0, 12, 60, 70], [50, 20, 110, 90]])[:count]
        masks = torch.zeros(count, 96, 128, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.long().tolist()):
            mask[y0:y1, x0:x1] = True
        truth = Instances((96, 128), gt_boxes=Boxes(boxes), gt_masks=BitMasks(masks))
        truth.gt_classes = torch.arange(count)
        image = (255 * torch.rand(3, 96, 128)).byte()
        batch.append({"image": image, "height": 48, "width": 64})
        if training:
            batch[-1]["instances"] = truth
    return batch


@pytest.fixture(scope="module")
def model() -> RefinedDetector:
    torch.manual_seed(0)
    detector = instantiate(load_config("detectors/hdetr_tiny.py").model)
    pyramid = FeaturePyramid(in_channels={"res2": 64, "res3": 128, "res4": 256}, channels=64)
    return RefinedDetector(detector=detector, mask_head=make_head(), num_classes=6, pyramid=pyramid)


def test_a_query_detector_learns_with_the_mask_head(model: RefinedDetector) -> None:
    losses = model.train()(_inputs(training=True))
    assert {"loss_mask", "loss_mask_uncertain", "loss_mask_refine"} <= losses.keys()
    assert len(losses) > 8  # the detector's own are there too
    torch.stack(list(losses.values())).sum().backward()
    unreached = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unreached == []


def test_instances_of_a_query_detector_get_masks_of_the_output_size(
    model: RefinedDetector,
) -> None:
    with torch.no_grad():
        results = model.eval()(_inputs(training=False))
    for result in results:
        found = result["instances"]
        assert found.pred_masks.shape == (len(found), 48, 64)
        assert found.pred_masks.dtype == torch.bool
        inside = found.pred_boxes.tensor
        for mask, (x0, y0, x1, y1) in zip(found.pred_masks, inside.tolist()):
            y, x = mask.nonzero(as_tuple=True)
            assert not len(x) or (x.min() >= x0 - 1 and x.max() <= x1 + 1)
            assert not len(y) or (y.min() >= y0 - 1 and y.max() <= y1 + 1)


@pytest.mark.parametrize("config", ["detectors/hdetr_tiny", "queryinst/queryinst_tiny"])
def test_an_image_is_refined_alike_alone_and_beside_one_of_another_size(config: str) -> None:
    torch.manual_seed(0)
    detector = instantiate(load_config(f"{config}.py").model)
    pyramid = None
    if "hdetr" in config:
        pyramid = FeaturePyramid(in_channels={"res2": 64, "res3": 128, "res4": 256}, channels=64)
    model = RefinedDetector(
        detector=detector, mask_head=make_head(), num_classes=6, pyramid=pyramid
    ).eval()
    images = [(255 * torch.rand(3, height, width)).byte() for height, width in SIZES]
    with torch.no_grad():
        together = model([{"image": image} for image in images])
        alone = [model([{"image": image}])[0] for image in images]
    for one, other, image in zip(together, alone, images):
        found, expected = one["instances"], other["instances"]
        assert found.image_size == tuple(image.shape[1:])
        assert len(found) == len(expected) > 0
        assert torch.allclose(found.scores, expected.scores, atol=1e-5)
        assert (found.pred_masks == expected.pred_masks).float().mean() > 0.999
        assert expected.pred_masks.any()


def test_training_boxes_stay_near_their_object(model: RefinedDetector) -> None:
    truth = _inputs(training=True)[0]["instances"]
    boxes = model.training_boxes(truth)
    assert len(boxes) == 8
    overlap = pairwise_iou(boxes.proposal_boxes, truth.gt_boxes)
    matched = overlap[torch.arange(8), boxes.gt_classes]
    assert (matched > 0.6).all() and (matched < 1).any()
    assert torch.equal(boxes.gt_masks.index, boxes.gt_classes)


@pytest.mark.parametrize("name", ["query_r50", "queryinst_r50"])
def test_query_based_configs_build_with_one_number_of_classes(name: str) -> None:
    cfg = load_config(f"mask_transfiner/mask_transfiner_{name}.py")
    with torch.device("meta"):
        model = instantiate(apply_overrides(cfg, ["model.num_classes=7"]).model)
    assert isinstance(model.detector, nn.Module)
    assert model.mask_head.num_classes == model.detector.num_classes == 7
