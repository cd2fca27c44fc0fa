"""A mask network on a detector of another kind, through the contract alone."""

import torch
from detector_inputs import image_input
from plain_detr import PlainDETR

from queryseg.losses import PointSampler
from queryseg.matching import BoxMatcher
from queryseg.projects.mask_frozen_detr.build import build_mask_network
from queryseg.projects.mask_frozen_detr.criterion import MaskCriterion
from queryseg.projects.mask_frozen_detr.model import MaskFrozenDETR


def _model() -> MaskFrozenDETR:
    torch.manual_seed(0)
    return MaskFrozenDETR(
        detector=PlainDETR(),
        mask_network=build_mask_network(
            num_classes=6,
            embed_dim=32,
            num_levels=1,
            stage1_channels=64,
            encoder_layer=2,
            image_layers=1,
            roi_size=8,
            hidden_dim=16,
            region_layers=1,
        ),
        criterion=MaskCriterion(
            weights={"mask": 5.0, "dice": 5.0, "iou": 1.0},
            point_sampler=PointSampler(num_points=16),
        ),
        matcher=BoxMatcher(),
        num_classes=6,
        num_boxes=20,
    )


def test_masks_are_learnt_on_a_plain_detr() -> None:
    model = _model().train()
    inputs = [image_input(64, 96, seed=3)]
    optimizer = torch.optim.AdamW(model.mask_network.parameters(), lr=3e-3)
    before = {name: value.clone() for name, value in model.detector.state_dict().items()}
    course = []
    for _ in range(25):
        torch.manual_seed(0)
        losses = model(inputs)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        course.append(total.item())
    assert course[-1] < 0.6 * course[0]
    after = model.detector.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_plain_detr_gives_instances_with_masks() -> None:
    model = _model().eval()
    with torch.no_grad():
        results = model([image_input(64, 96, count=0), image_input(50, 70, count=0)])
    for result, size in zip(results, [(64, 96), (50, 70)]):
        instances = result["instances"]
        assert instances.pred_masks.shape == (20, *size)
        assert (instances.pred_classes < 6).all()
