"""Boxes, pooling, matching, mask targets and losses, against naive or other implementations."""

import math

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.structures import BitMasks, Boxes, Instances
from queryinst_model import small_model
from scipy.optimize import linear_sum_assignment

from queryseg.engine import load_config
from queryseg.projects.queryinst.boxes import MAX_LOG_RATIO, apply_deltas
from queryseg.projects.queryinst.mask_branch import MaskBranch
from queryseg.projects.queryinst.mask_head import MaskHead
from queryseg.projects.queryinst.mask_loss import dice_loss
from queryseg.projects.queryinst.matcher import StageMatcher
from queryseg.projects.queryinst.proposals import ProposalQueries
from queryseg.projects.queryinst.roi_features import BoxFeatures
from queryseg.projects.queryinst.stage import StagePrediction
from queryseg.projects.queryinst.targets import MASKS_AT_ONCE, InstanceTargets


def _boxes(count: int, side: float = 100.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=generator) * side
    halves = torch.exp(torch.rand(count, 2, generator=generator) * 2.5)
    return torch.cat((centres - halves, centres + halves), dim=1)


def test_deltas_move_by_half_sides_and_scale_within_a_symmetric_bound() -> None:
    box = torch.tensor([10.0, 20.0, 30.0, 60.0])  # 20 wide, 40 high
    moved = apply_deltas(box, torch.tensor([1.0, -0.5, math.log(2), 0.0]))
    torch.testing.assert_close(moved, torch.tensor([10.0, 10.0, 50.0, 50.0]))
    for delta, factor in ((9.0, 62.5), (-9.0, 1 / 62.5)):
        scaled = apply_deltas(box, torch.tensor([0.0, 0.0, delta, 0.0]))
        torch.testing.assert_close(scaled[2] - scaled[0], torch.tensor(20 * factor))
    assert pytest.approx(4.135166556742356) == MAX_LOG_RATIO


def test_learned_boxes_start_as_the_whole_image_or_in_a_grid() -> None:
    image = ProposalQueries(num_queries=5, embed_dim=4)
    boxes, queries, masks = image([(48, 64), (30, 20)])
    assert boxes[0].tolist() == [[0.0, 0.0, 64.0, 48.0]] * 5
    assert boxes[1].tolist() == [[0.0, 0.0, 20.0, 30.0]] * 5
    assert queries.shape == (2, 5, 4) and masks is None
    grid = ProposalQueries(num_queries=7, embed_dim=4, box_init="grid")
    boxes = grid([(90, 90)])[0][0]
    assert boxes.shape == (7, 4)
    torch.testing.assert_close(boxes[5], torch.tensor([45.0, 15.0, 105.0, 75.0]))
    with pytest.raises(ValueError, match="box_init is 'corner'; expected 'image' or 'grid'"):
        ProposalQueries(num_queries=7, embed_dim=4, box_init="corner")  # type: ignore[arg-type]


def test_box_features_are_those_of_roi_align_on_the_level_of_detectron2() -> None:
    strides = (4, 8, 16, 32)
    features = [torch.randn(2, 5, 256 // stride, 256 // stride).double() for stride in strides]
    boxes = torch.cat((_boxes(12, 256), torch.tensor([[-40.0, -30, 250, 280], [0, 0, 130, 120]])))
    boxes = boxes.double()
    images = torch.tensor([0, 1] * 7)
    pool = BoxFeatures(resolution=3)
    levels = assign_boxes_to_levels([Boxes(boxes)], 2, 5, 224, 4)
    assert torch.equal(pool.levels(boxes), levels)
    assert len(levels.unique()) >= 3
    pooled = pool(features, boxes, images)
    for index, level in enumerate(levels.tolist()):
        align = ROIAlign((3, 3), 1 / strides[level], 2, aligned=True)
        roi = torch.cat((images[index : index + 1, None].double(), boxes[index : index + 1]), dim=1)
        expected = align(features[level], roi)[0].flatten(1).mT
        torch.testing.assert_close(pooled[index], expected, rtol=1e-10, atol=1e-10)


def _targets(labels: list[int], boxes: torch.Tensor, sizes: tuple[int, ...]) -> InstanceTargets:
    instances = [
        Instances(
            (100, 120),
            gt_classes=part_labels,
            gt_boxes=Boxes(part_boxes),
            gt_masks=BitMasks(torch.zeros(len(part_labels), 100, 120, dtype=torch.bool)),
        )
        for part_labels, part_boxes in zip(torch.tensor(labels).split(sizes), boxes.split(sizes))
    ]
    return InstanceTargets.with_masks(instances, torch.device("cpu"), 32)


def _naive_cost(logit: np.ndarray, box: np.ndarray, label: int, target: np.ndarray) -> float:
    p = 1 / (1 + math.exp(-logit[label]))
    focal = 0.25 * (1 - p) ** 2 * -math.log(p + 1e-12)
    focal -= 0.75 * p**2 * -math.log(1 - p + 1e-12)
    sides = np.array([120, 100, 120, 100])
    l1 = np.abs(box / sides - target / sides).sum()

    def area(x0: float, y0: float, x1: float, y1: float) -> float:
        return max(x1 - x0, 0) * max(y1 - y0, 0)

    inter = area(*np.maximum(box[:2], target[:2]), *np.minimum(box[2:], target[2:]))
    union = area(*box) + area(*target) - inter
    hull = area(*np.minimum(box[:2], target[:2]), *np.maximum(box[2:], target[2:]))
    giou = inter / union - (hull - union) / hull
    return 2 * focal + 5 * l1 - 2 * giou


def test_each_stage_is_matched_at_the_least_cost_of_a_naive_loop() -> None:
    labels, sizes = [2, 0, 1, 1], (3, 1)
    boxes = _boxes(4, seed=5)
    targets = _targets(labels, boxes, sizes)
    predictions = [
        StagePrediction(
            class_logits=torch.randn(2, 6, 3).double(),
            boxes_xyxy_abs=torch.stack((_boxes(6, seed=seed), _boxes(6, seed=seed + 9))).double(),
            query_feats=torch.empty(0),
            mask_queries=torch.empty(0),
            next_mask_queries=None,
        )
        for seed in (1, 2)
    ]
    matcher = StageMatcher(weight_class=2.0, weight_box=5.0, weight_giou=2.0)
    matched = matcher(predictions, targets)
    for prediction, assignment in zip(predictions, matched):
        for image, (first, count) in enumerate(((0, 3), (3, 1))):
            cost = np.array(
                [
                    [
                        _naive_cost(logit, box, labels[t], boxes[t].numpy().astype(np.float64))
                        for t in range(first, first + count)
                    ]
                    for logit, box in zip(
                        prediction.class_logits[image].numpy(),
                        prediction.boxes_xyxy_abs[image].numpy(),
                    )
                ]
            )
            rows, columns = linear_sum_assignment(cost)
            src_idx, tgt_idx = assignment.of_image(image)
            assert src_idx.tolist() == rows.tolist() and tgt_idx.tolist() == columns.tolist()


def test_mask_targets_are_those_of_detectron2_inside_the_image() -> None:
    count = MASKS_AT_ONCE + 3  # more than are cropped at once
    masks = torch.rand(count, 64, 96) > 0.4
    instances = Instances(
        (64, 96),
        gt_classes=torch.zeros(count, dtype=torch.int64),
        gt_boxes=Boxes(torch.zeros(count, 4)),
        gt_masks=BitMasks(masks),
    )
    targets = InstanceTargets.with_masks([instances[:5], instances], torch.device("cpu"), 32)
    boxes = _boxes(count, 60).clamp(0, 64)
    tgt_idx = torch.randperm(count) + 5
    cropped = targets.crop_masks(boxes, tgt_idx, 9)
    expected = BitMasks(masks[tgt_idx - 5]).crop_and_resize(boxes, 9)
    assert torch.equal(cropped.bool(), expected)
    assert 0.2 < float(cropped.mean()) < 0.9


def test_mask_targets_of_boxes_that_leave_the_image_are_those_of_the_clipped_box() -> None:
    masks = torch.ones(1, 40, 50, dtype=torch.bool)
    instances = Instances(
        (40, 50),
        gt_classes=torch.tensor([0]),
        gt_boxes=Boxes([[0, 0, 50, 40]]),
        gt_masks=BitMasks(masks),
    )
    targets = InstanceTargets.with_masks([instances], torch.device("cpu"), 32)
    assert targets.masks[0].shape == (1, 64, 64)  # padded by itself
    box, padded = torch.tensor([[-30.0, -20, 90, 100]]), torch.tensor([[0.0, 0, 64, 64]])
    first = torch.tensor([0])
    assert torch.equal(targets.crop_masks(box, first, 16), targets.crop_masks(padded, first, 16))
    share = float(targets.crop_masks(box, first, 16).mean())
    assert share == pytest.approx(40 * 50 / 64**2, abs=0.05)


def test_dice_loss_equals_its_formula_and_costs_one_for_an_empty_target() -> None:
    logits, targets = torch.randn(4, 3, 5), (torch.rand(4, 3, 5) > 0.5).float()
    targets[3] = 0
    probs = 1 / (1 + (-logits).exp())
    expected = [
        1 - 2 * float((p * t).sum()) / (float((p * p).sum()) + float(t.sum()) + 1e-5)
        for p, t in zip(probs, targets)
    ]
    torch.testing.assert_close(dice_loss(logits, targets), torch.tensor(expected))
    assert expected[3] == 1.0


def test_box_heads_start_from_xavier_weights_and_a_class_prior() -> None:
    head = small_model().decoder.stages[0].box_head
    assert head.class_embed.bias.tolist() == pytest.approx([-math.log(99)] * 6)
    assert not head.box_embed.bias.any()
    weight = head.dynamic_conv.dynamic_layer.weight
    bound = math.sqrt(6 / sum(weight.shape))
    assert 0.99 * bound < float(weight.detach().abs().max()) <= bound


def test_pyramid_starts_from_xavier_weights_and_no_bias() -> None:
    cfg = load_config("queryinst/queryinst_r50_100q_3x.py")
    pyramid = instantiate(cfg.model.backbone)
    for level, channels in ((2, 256), (3, 512), (4, 1024), (5, 2048)):
        lateral = getattr(pyramid, f"fpn_lateral{level}")
        output = getattr(pyramid, f"fpn_output{level}")
        for conv, fans in ((lateral, channels + 256), (output, 9 * (256 + 256))):
            bound, weight = math.sqrt(6 / fans), conv.weight.detach()
            assert 0.999 * bound < float(weight.abs().max()) <= bound
            assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)
            assert not conv.bias.any()


def test_mask_heads_start_as_run_or_as_intended() -> None:
    torch.manual_seed(0)
    run = MaskHead(embed_dim=64, num_classes=3)
    intended = MaskHead(embed_dim=64, num_classes=3, init="as_intended")
    # He's normal rule against Xavier's uniform one; torch's default against Xavier's.
    assert float(run.convs[0].weight.std()) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)
    assert float(intended.convs[0].weight.std()) == pytest.approx(math.sqrt(1 / (64 * 9)), rel=0.03)
    layers = [head.dynamic_conv.dynamic_layer.weight.std() for head in (run, intended)]
    assert float(layers[0]) == pytest.approx(math.sqrt(1 / (3 * 64)), rel=0.03)
    assert float(layers[1]) == pytest.approx(math.sqrt(2 / (64 + 8192)), rel=0.03)
    assert not intended.classifier.bias.any() and run.classifier.bias.any()
    assert not run.convs[0].bias.any() and not intended.convs[0].bias.any()
    with pytest.raises(ValueError, match="mask head init is 'other'"):
        MaskHead(embed_dim=64, num_classes=3, init="other")  # type: ignore[arg-type]


def _branch(**options: object) -> MaskBranch:
    torch.manual_seed(0)
    return MaskBranch(
        embed_dim=8,
        num_classes=3,
        num_stages=3,
        box_features=BoxFeatures(resolution=4, strides=(4,)),
        dynamic_dim=4,
        num_convs=1,
        **options,  # type: ignore[arg-type]
    ).eval()


def _run(branch: MaskBranch, queries: list[torch.Tensor]) -> torch.Tensor:
    features = [torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(1))]
    image_idx, labels = torch.zeros(5, dtype=torch.int64), torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        box_feats = branch.box_features(features, _boxes(5, 60), image_idx)
        return branch(2, box_feats, queries, labels)


def test_mask_flow_brings_the_queries_of_earlier_stages_to_the_last_mask() -> None:
    queries = [torch.randn(5, 8) for _ in range(3)]
    changed = [torch.randn(5, 8), *queries[1:]]
    plain, flowing = _branch(), _branch(flow="htc")
    assert torch.equal(_run(plain, queries), _run(plain, changed))
    assert not torch.allclose(_run(flowing, queries), _run(flowing, changed))
    assert [head.flow is not None for head in flowing.heads.values()] == [False, True, True]
    torch.nn.init.constant_(flowing.head(2).flow.weight, 0.0)  # then nothing arrives
    assert torch.equal(_run(flowing, queries), _run(flowing, changed))


def test_vanilla_mask_heads_never_look_at_a_query() -> None:
    branch = _branch(dynamic=False)
    queries = [torch.randn(5, 8) for _ in range(3)]
    assert torch.equal(_run(branch, queries), _run(branch, [q + 1 for q in queries]))
    assert not any("dynamic" in name for name, _ in branch.named_parameters())


def test_mask_flow_needs_parallel_heads() -> None:
    with pytest.raises(ValueError, match="needs the mask heads of all stages: parallel=true"):
        _branch(flow="htc", parallel=False)
    with pytest.raises(ValueError, match="mask flow is 'up'; expected 'none' or 'htc'"):
        _branch(flow="up")


@pytest.mark.parametrize(
    ("share_query", "share_msa", "sets", "attentions"),
    [(True, True, 1, 1), (True, False, 1, 2), (False, True, 2, 1), (False, False, 2, 2)],
)
def test_tasks_share_queries_and_attention_as_table_6_says(
    share_query: bool, share_msa: bool, sets: int, attentions: int
) -> None:
    model = small_model(
        f"model.decoder.share_query={str(share_query).lower()}",
        f"model.decoder.share_msa={str(share_msa).lower()}",
    ).eval()
    decoder = model.decoder
    assert (decoder.proposals.mask_query_feats is None) == (sets == 1)
    names = {n.split(".")[0] for n, _ in decoder.stages[1].named_parameters()}
    assert len(names & {"attention", "mask_attention"}) == attentions
    features = [torch.randn(1, 32, 64 // s, 64 // s) for s in (4, 8, 16)]
    with torch.no_grad():
        predictions = decoder(features, [(64, 64)])
        stage = decoder.stages[0]
        queries = decoder.proposals.query_feats[None]
        mine = queries if share_query else decoder.proposals.mask_query_feats[None]
        expected = (stage.attention if share_msa else stage.mask_attention)(mine)
    assert torch.equal(predictions[0].mask_queries, expected)
    if not share_query:
        attention = decoder.stages[1].attention if share_msa else decoder.stages[1].mask_attention
        with torch.no_grad():
            assert torch.equal(predictions[1].mask_queries, attention(expected))
