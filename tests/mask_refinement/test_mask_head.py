"""The quadtree mask head: sparse against dense, ablations, and batches that go wrong elsewhere."""

import logging

import pytest
import torch
from refinement_case import NAMES, benchmark, make_head, make_instances, make_maps

from queryseg.mask_refinement import mask_head as mask_head_module
from queryseg.mask_refinement.rois import RoIs

BASE = "mask_transfiner_r50_1x"


def test_sparse_masks_equal_the_dense_formulation_on_the_same_weights() -> None:
    dense = benchmark()
    head = make_head("max_boxes_test=null", "refiner.node_encoder.context_dim=0")
    maps = list(make_maps(1).values())
    boxes = torch.cat([x.pred_boxes.tensor for x in make_instances((7,))])
    classes = torch.arange(7) % 6
    width = head.refiner.sequence_encoder.layers[0].norm.weight.numel()
    dense._dense_positions.__defaults__ = None
    original = dense.sine_position_table
    dense.sine_position_table = lambda sizes, _: original(sizes, width)
    with torch.no_grad():
        expected = dense.dense_segment(
            head, maps, RoIs.from_images([boxes]), classes, dense.Clock()
        )
        result = head.segment(maps, RoIs.from_images([boxes]), classes)
    assert result.nodes is not None and (result.nodes.counts[:, 1:] > 0).any()
    assert len(result.nodes.counts.unique(dim=0)) > 1  # sequences of different lengths
    torch.testing.assert_close(result.masks, expected, atol=1e-5, rtol=0)
    assert (
        result.masks
        - torch.nn.functional.interpolate(
            result.coarse_probs, result.masks.shape[-2:], mode="bilinear"
        )
    ).abs().max() > 0.05


def test_a_box_gets_the_same_mask_alone_and_in_a_batch() -> None:
    head = make_head()
    maps, instances = make_maps(2), make_instances((3, 2))
    with torch.no_grad():
        together = head(maps, instances)
        for image in range(2):
            own = {name: maps[name][image : image + 1] for name in NAMES}
            alone = head(own, make_instances((3, 2))[image : image + 1])
            torch.testing.assert_close(
                together[image].pred_masks, alone[0].pred_masks, atol=1e-5, rtol=0
            )


def test_the_size_of_the_batches_of_tokens_changes_nothing() -> None:
    head, rois = make_head(), RoIs.from_images([x.pred_boxes.tensor for x in make_instances()])
    maps, classes = list(make_maps().values()), torch.zeros(5, dtype=torch.long)
    with torch.no_grad():
        expected = head.segment(maps, rois, classes).masks
        head.refiner.tokens_at_once = 1
        torch.testing.assert_close(
            head.segment(maps, rois, classes).masks, expected, atol=1e-5, rtol=0
        )


def test_a_limit_keeps_the_rest_coarse_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    mask_head_module._SAID.clear()
    head = make_head("max_boxes_test=2")
    rois = RoIs.from_images([x.pred_boxes.tensor for x in make_instances()])
    maps, classes = list(make_maps().values()), torch.zeros(5, dtype=torch.long)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        result = head.segment(maps, rois, classes)
        head.segment(maps, rois, classes)
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        "3 of 5 boxes of the batch keep their coarse masks"
    ]
    size = result.masks.shape[-1]
    coarse = torch.nn.functional.interpolate(result.coarse_probs, (size, size), mode="bilinear")
    torch.testing.assert_close(result.masks[2:], coarse[2:])
    assert not torch.allclose(result.masks[:2], coarse[:2])


ABLATIONS = {
    "full RoIs": ["region.kind=full", "sampler.kind=full"],
    "PointRend": [
        "region.kind=uncertain",
        "region.num_cells=30",
        "refiner.sequence_encoder.kind=mlp",
    ],
    "boundary": ["region.radius=2", "criterion.incoherence.kind=outline"],
    "without the root": ["skipped_levels=[0]"],
    "fine cue only": ["refiner.node_encoder.coarse=false", "refiner.node_encoder.position=none"],
    "position in the token": ["refiner.node_encoder.position=token"],
    "depth 0": ["refiner=null"],
    "depth 1": [
        "pyramid.grid_sizes=[14]",
        "pyramid.level_offsets=[1]",
        "region.thresholds=[0.5]",
        "region.train_thresholds=[0.5]",
    ],
    "non-local": ["refiner.sequence_encoder.kind=nonlocal"],
    "CNN": [
        "region.kind=full",
        "pyramid.grid_sizes=[28]",
        "pyramid.level_offsets=[2]",
        "sampler.kind=full",
        "refiner.sequence_encoder.kind=cnn",
    ],
    "each level for itself": ["refiner.joint=false"],
    "leaves only": ["propagation.leaves_only=true"],
    "nearest": ["propagation.mode=nearest"],
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_trains_and_predicts(name: str) -> None:
    head = make_head(*ABLATIONS[name])
    with torch.no_grad():
        masks = torch.cat([x.pred_masks for x in head(make_maps(), make_instances())])
    size = 14 if name in ("depth 0", "depth 1") else 28 if name == "CNN" else 56
    assert masks.shape == (5, 1, size, size)
    assert ((masks >= 0) & (masks <= 1)).all()
    losses = head.train()(make_maps(), make_instances(training=True))
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    unreached = [n for n, p in head.named_parameters() if p.grad is None]
    used = ("refiner", "detector")
    assert not [n for n in unreached if n.startswith("refiner") or not n.startswith(used)]


@pytest.mark.parametrize("counts", [(0, 0), (2, 0), (0, 3)])
@pytest.mark.parametrize("amp", [False, True])
def test_images_without_objects_train_every_parameter(counts: tuple[int, int], amp: bool) -> None:
    for config in ("mask_transfiner_tiny",):
        head = make_head(config=config).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            losses = head(make_maps(), make_instances(counts, training=True))
            torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        assert all(torch.isfinite(loss) for loss in losses.values())
        grads = {n: p.grad for n, p in head.named_parameters()}
        assert all(grad is not None and grad.isfinite().all() for grad in grads.values())


def test_no_boxes_give_no_masks() -> None:
    head = make_head()
    with torch.no_grad():
        found = head(make_maps(), make_instances((0, 0)))
    assert [tuple(x.pred_masks.shape) for x in found] == [(0, 1, 56, 56)] * 2


def test_the_papers_profile_trains_its_cascade_on_every_level() -> None:
    from detectron2.config import instantiate

    from queryseg.engine import load_config

    cfg = load_config("mask_transfiner/mask_transfiner_r50_paper.py").model.roi_heads.mask_head
    cfg.coarse_head.num_classes = 80
    head = instantiate(cfg).train()
    maps = {
        f"p{level}": torch.randn(1, 256, 128 // 2**level, 128 // 2**level) for level in range(2, 6)
    }
    losses = head(maps, make_instances((2,), training=True))
    assert losses.keys() == {"loss_mask", "loss_mask_uncertain", "loss_mask_refine"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    with torch.no_grad():
        head.detector.predictor.bias.fill_(1.0)
        head.detector.bias.fill_(0.5)
        found = head.eval()(maps, make_instances((2,)))
    assert found[0].pred_masks.shape == (2, 1, 112, 112)
