"""Sparse RoIAlign at quadtree nodes against torchvision and a scalar definition."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from quadtree_gather_cases import (
    dense,
    make_case,
    naive,
    naive_output_and_grads,
    operator_arguments,
    random_case,
    relative_error,
)

from queryseg.ops.quadtree_gather import (
    gather_nodes,
    quadtree_gather_backward_reference,
    quadtree_gather_reference,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "mask_transfiner"


@pytest.mark.parametrize("seed", range(20))
def test_equals_torchvision_roi_align_indexed_at_the_nodes(seed):
    case = make_case(seed, channels=5, nodes=40, sampling_ratio=seed % 3)
    assert relative_error(case.gather(), dense(case)) < 1e-13


def test_equals_the_scalar_definition_and_its_gradient_for_any_shape():
    for seed in range(220):
        case = random_case(seed)
        for got, expected in zip(
            case.output_and_grads(), naive_output_and_grads(case), strict=True
        ):
            assert relative_error(got, expected) < 1e-12, seed


def test_pure_torch_equals_the_scalar_definition_and_its_gradient():
    for seed in range(60):
        case = random_case(seed)
        arguments = operator_arguments(case)
        expected, *grads = naive_output_and_grads(case)
        assert relative_error(quadtree_gather_reference(*arguments), expected) < 1e-12, seed
        weight = torch.linspace(-1, 1, expected.numel()).view_as(expected).double()
        sizes = [size for feature in case.features for size in feature.shape[2:]]
        got = quadtree_gather_backward_reference(
            weight, len(case.features[0]), sizes, *arguments[1:]
        )
        for one, other in zip(got, grads, strict=True):
            assert relative_error(one.permute(0, 3, 1, 2), other) < 1e-6, seed


def test_float32_keeps_its_accuracy():
    for seed in range(20):
        case = make_case(seed, channels=32, nodes=50)
        got = case.to(torch.float32, torch.float32).output_and_grads()
        # Measured: 2e-7 to 2e-6.
        for one, other in zip(got, case.output_and_grads(), strict=True):
            assert relative_error(one, other) < 1e-5


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.bfloat16, 5e-3), (torch.float16, 1e-3)])
def test_half_precision_loses_only_the_rounding_of_the_values(dtype, accuracy):
    for seed in range(20):
        case = make_case(seed, channels=33 + seed, nodes=50, dtype=torch.float32)
        got = case.to(dtype, torch.float32).output_and_grads()
        assert all(one.dtype == dtype for one in got)
        for one, other in zip(got, case.output_and_grads(), strict=True):
            assert relative_error(one, other) < accuracy


def test_autocast_rounds_the_features_but_not_the_boxes():
    case = make_case(0, channels=32, nodes=50, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = case.gather()
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, case.to(torch.bfloat16, torch.float32).gather())
    exact = case.gather()
    moved = replace(case, boxes=case.boxes.bfloat16().float()).gather()
    # The check has teeth: boxes in half precision would be far off.
    assert relative_error(output, exact) < 5e-3
    assert relative_error(moved, exact) > 2e-2


@pytest.mark.parametrize("seed", range(10))
def test_gradcheck(seed):
    channels = (1, 4, 8, 33)[seed % 4]
    case = make_case(seed, channels=channels, shapes=[(5, 4), (3, 2)], nodes=6)
    features = [feature.requires_grad_() for feature in case.features]
    assert torch.autograd.gradcheck(
        lambda *features: replace(case, features=list(features)).gather(),
        features,
        atol=1e-6,
        rtol=1e-4,
        fast_mode=channels > 4,
    )


def test_boxes_and_unused_maps_get_no_gradient_and_zeros():
    case = make_case(0, shapes=[(16, 14), (8, 7)])
    case.feature_level.zero_()
    case.boxes.requires_grad_()
    leaves = [feature.requires_grad_() for feature in case.features]
    case.gather().sum().backward()
    assert case.boxes.grad is None
    assert leaves[0].grad.abs().sum() > 0
    assert torch.equal(leaves[1].grad, torch.zeros_like(leaves[1]))


def test_second_derivatives_are_refused():
    case = make_case(0)
    feature = case.features[0].requires_grad_()
    (grad,) = torch.autograd.grad(case.gather().square().sum(), feature, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives are not supported"):
        grad.sum().backward()


@pytest.mark.parametrize(
    "box",
    [
        (8.0, 8.0, 8.0, 20.0),
        (20.0, 20.0, 8.0, 8.0),
        (float("nan"), 0.0, 9.0, 9.0),
        (0.0, 0.0, float("inf"), 9.0),
        (float("-inf"), 0.0, float("inf"), 9.0),
        (200.0, 200.0, 300.0, 300.0),
        (-1e30, -1e30, 1e30, 1e30),
    ],
    ids=["no width", "negative", "nan", "infinite", "infinite both ways", "off", "huge"],
)
def test_boxes_that_hold_no_pixel_give_finite_values_and_gradients(box):
    case = make_case(0)
    case.boxes[:] = torch.tensor(box)
    output, *grads = case.output_and_grads()
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(grad).all() for grad in grads)
    if box[2] != 1e30:
        assert not output.any()
    expected = quadtree_gather_reference(*operator_arguments(case))
    assert relative_error(output, expected) < 1e-13


def test_a_nan_beside_a_cell_does_not_leak_into_it():
    feature = torch.ones(1, 3, 6, 6)
    feature[:, :, :, 4:] = float("nan")
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    zero = torch.zeros(1, dtype=torch.long)
    index = torch.tensor([[0, y, x] for y in range(4) for x in range(4)])
    level = torch.zeros(16, dtype=torch.long)
    output = gather_nodes([feature], [1.0], box, zero, zero.view(1, 1), [4], index, level)
    assert torch.equal(output, torch.ones(16, 3))


@pytest.mark.host
def test_results_do_not_depend_on_runs_or_threads():
    case = make_case(3, channels=64, nodes=400, instances=8, dtype=torch.float32)
    threads = torch.get_num_threads()
    expected = case.output_and_grads()
    try:
        for number in (1, 2, 1, 3, 2, 1, 2, 3, 2, 1):
            torch.set_num_threads(number)
            for one, other in zip(case.output_and_grads(), expected, strict=True):
                assert torch.equal(one, other)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("images", [1, 7, 154])
def test_any_number_of_images(images):
    case = make_case(images, images=images, shapes=[(4, 4), (2, 2)], instances=9, nodes=30)
    assert relative_error(case.gather(), naive(case)) < 1e-12


def test_maps_beyond_two_to_the_31_elements_are_addressed_correctly():
    channels, rows = 1 << 20, (1 << 11) + 2
    # The system hands out untouched zero pages, so that this takes only the memory it writes.
    feature = torch.from_numpy(np.zeros((1, rows, 1, channels), dtype=np.float16))
    feature[0, -1] = 1
    feature[0, -2] = 3
    assert feature.numel() > 1 << 31
    box = torch.tensor([[0.0, rows - 2.0, 1.0, rows]])
    zero = torch.zeros(1, dtype=torch.long)
    node = torch.zeros(1, 3, dtype=torch.long)
    output = gather_nodes(
        [feature.permute(0, 3, 1, 2)], [1.0], box, zero, zero.view(1, 1), [1], node, zero
    )
    assert torch.equal(output, torch.full((1, channels), 2.0, dtype=torch.float16))


def test_golden_pyramid_of_the_official_pooler():
    golden = np.load(GOLDEN / "pooler_levels.npz")
    maps = [
        torch.from_numpy(np.random.RandomState(100 + n).randn(1, 1, 512 >> n, 640 >> n)).float()
        for n in (2, 3, 4, 5)
    ]
    # From 28 on, the finest level carries the semantic features too.
    maps.append(maps[0] + torch.from_numpy(golden["semantic_ch0"]))
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 4]
    coarse = torch.from_numpy(golden["level14"])
    finer = [(coarse - up).clamp(min=0) for up in (1, 2, 3)]
    feature_level = torch.stack([coarse, *(one.where(one > 0, 4) for one in finer)], 1)
    steps, grids = (1, 1, 1, 4), (14, 28, 56, 112)
    index, level = [], []
    for number, (grid, step) in enumerate(zip(grids, steps)):
        at = torch.arange(0, grid, step)
        index.append(torch.cartesian_prod(torch.arange(6), at, at))
        level.append(torch.full((len(index[-1]),), number))
    output = gather_nodes(
        maps,
        scales,
        torch.from_numpy(golden["boxes"]),
        torch.zeros(6, dtype=torch.long),
        feature_level,
        grids,
        torch.cat(index),
        torch.cat(level),
    )
    expected = [golden[name] for name in ("roi14_ch0", "roi28_ch0", "roi56_ch0", "roi112_ch0_s4")]
    wanted = torch.from_numpy(np.concatenate([one.reshape(-1) for one in expected]))
    assert (output.squeeze(1) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["even", "odd"])
def test_golden_incoherent_regions_of_the_official_targets(kind):
    golden = np.load(GOLDEN / "gt_incoherent.npz")
    maps = torch.from_numpy(golden[f"{kind}_incoherent"]).unsqueeze(1)
    at = torch.arange(28)
    index = torch.cartesian_prod(torch.arange(9), at, at)
    zero = torch.zeros(9, 1, dtype=torch.long)
    output = gather_nodes(
        [maps],
        [1.0],
        torch.from_numpy(golden[f"{kind}_boxes"]) / 2,
        torch.arange(9),
        zero,
        [28],
        index,
        torch.zeros(len(index), dtype=torch.long),
    ).view(9, 28, 28)
    expected = torch.from_numpy(golden[f"{kind}_roi28_raw"])
    assert (output - expected).abs().max() < 1e-5
    assert torch.equal(output >= 0.05, torch.from_numpy(golden[f"{kind}_roi28"]))
