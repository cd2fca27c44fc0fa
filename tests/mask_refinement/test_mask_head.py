"""The quadtree mask head: sparse against dense, ablations, and batches that go wrong elsewhere."""

import logging
from collections.abc import Callable

import pytest
import torch
from detectron2.config import instantiate
from refinement_case import NAMES, benchmark, make_head, make_instances, make_maps
from torch import Tensor
from torch.nn.functional import interpolate

from queryseg.engine import apply_overrides, load_config
from queryseg.mask_refinement import mask_head as mask_head_module
from queryseg.mask_refinement.mask_head import QuadtreeMaskHead
from queryseg.mask_refinement.rois import RoIs
from queryseg.projects.mask_transfiner.parity_evaluation import recipe_features


def _small_case() -> tuple[QuadtreeMaskHead, list[Tensor], Tensor]:
    head = make_head("max_boxes_test=null", "refiner.node_encoder.context_dim=0")
    boxes = torch.cat([x.pred_boxes.tensor for x in make_instances((7,))])
    return head, list(make_maps(1).values()), boxes


def _released_case() -> tuple[QuadtreeMaskHead, list[Tensor], Tensor]:
    maps = list(recipe_features(192, 256, 1, 30.0, torch.float32).values())
    boxes = torch.tensor([[10.0, 12, 60, 50], [30.5, 20.25, 150.75, 130.5], [128, 64, 240, 190]])
    return benchmark().make_head(), maps, boxes


@pytest.mark.parametrize("case", [_small_case, _released_case], ids=["small", "released"])
def test_labels_and_masks_equal_the_dense_formulation_on_the_same_weights(
    case: Callable[[], tuple[QuadtreeMaskHead, list[Tensor], Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head, maps, boxes = case()
    dense, rois, classes = benchmark(), RoIs.from_images([boxes]), torch.arange(len(boxes)) % 6
    width = head.refiner.sequence_encoder.layers[0].norm.weight.numel()
    table = dense.sine_position_table
    monkeypatch.setattr(dense, "sine_position_table", lambda sizes, _: table(sizes, width))
    with torch.no_grad():
        masks, labels = dense.dense_segment(head, maps, rois, classes, dense.Clock())
        result = head.segment(maps, rois, classes)
    nodes = result.nodes
    assert nodes is not None and result.labels is not None
    assert (nodes.counts[:, 1:] > 0).any()
    assert len(nodes.counts.unique(dim=0)) > 1  # sequences of different lengths
    assert labels.std() > 0.01
    torch.testing.assert_close(result.labels[nodes.level > 0], labels, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.masks, masks, atol=1e-4, rtol=0)
    coarse = interpolate(result.coarse_probs, masks.shape[-2:], mode="bilinear")
    assert (result.masks - coarse).abs().max() > 0.05


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
    assert not [n for n, p in head.named_parameters() if p.grad is None]


@pytest.mark.parametrize("counts", [(0, 0), (2, 0), (0, 3)])
@pytest.mark.parametrize("amp", [False, True])
def test_images_without_objects_train_every_parameter(counts: tuple[int, int], amp: bool) -> None:
    head = make_head().train()
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        losses = head(make_maps(), make_instances(counts, training=True))
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    grads = {n: p.grad for n, p in head.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())


def test_half_precision_moves_losses_and_masks_little() -> None:
    head = make_head()
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.no_grad():
            torch.manual_seed(0)
            losses = head.train()(make_maps(), make_instances(training=True))
            masks = torch.cat([x.pred_masks for x in head.eval()(make_maps(), make_instances())])
        assert masks.dtype == torch.float32
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        found.append((losses, masks > 0.5))
    (exact, masks), (half, half_masks) = found
    for name, loss in exact.items():
        assert float(half[name]) == pytest.approx(float(loss), rel=0.05), name
    # Measured: 0.5 %; the threshold of a level is a step.
    assert (masks != half_masks).float().mean() < 0.02


def test_no_boxes_give_no_masks() -> None:
    head = make_head()
    with torch.no_grad():
        found = head(make_maps(), make_instances((0, 0)))
    assert [tuple(x.pred_masks.shape) for x in found] == [(0, 1, 56, 56)] * 2


def paper_head(*overrides: str) -> tuple[QuadtreeMaskHead, dict[str, Tensor]]:
    """The head of the paper's profile at full width, and maps for it."""
    cfg = load_config("mask_transfiner/mask_transfiner_r50_paper.py")
    apply_overrides(cfg, [f"model.roi_heads.mask_head.{one}" for one in overrides])
    cfg.model.roi_heads.mask_head.coarse_head.num_classes = 80
    torch.manual_seed(0)
    sides = {f"p{level}": 128 // 2**level for level in range(2, 6)}
    maps = {name: torch.randn(1, 256, side, side) for name, side in sides.items()}
    return instantiate(cfg.model.roi_heads.mask_head).train(), maps


@pytest.mark.parametrize("kind", ["detected", "full"])
def test_a_cascade_of_one_level_has_no_parameter_that_nothing_teaches(kind: str) -> None:
    head, maps = paper_head(
        "pyramid.grid_sizes=[28]",
        "pyramid.level_offsets=[0]",
        "region.thresholds=[0.5]",
        f"region.kind={kind}",
    )
    losses = head(maps, make_instances((2,), training=True))
    torch.stack(list(losses.values())).sum().backward()
    assert not [n for n, p in head.named_parameters() if p.requires_grad and p.grad is None]


def test_the_papers_profile_trains_its_cascade_on_every_level() -> None:
    head, maps = paper_head()
    losses = head(maps, make_instances((2,), training=True))
    assert losses.keys() == {"loss_mask", "loss_mask_uncertain", "loss_mask_refine"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    with torch.no_grad():
        head.detector.predictor.bias.fill_(1.0)
        head.detector.bias.fill_(0.5)
        found = head.eval()(maps, make_instances((2,)))
    assert found[0].pred_masks.shape == (2, 1, 112, 112)
